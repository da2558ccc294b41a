defmodule Ringbridge.Server.Wire do
  @moduledoc """
  What is said between this VM and the shepherd of its bridge: frames of a port with `packet: 4`.

  Pure. The numbers are those of `csrc/include/ringbridge/port_protocol.h`, which says what each means; a test reads that file and
  holds the two together.
  """

  @version 1
  @stdin_max 4096
  @frame_max 262_144

  @typedoc "What the bridge is to be. `stdin` is all that it can read there."
  @type start :: %{
          argv: [String.t(), ...],
          env: [{String.t(), String.t()}],
          directory: String.t(),
          grace_ms: non_neg_integer(),
          stdin: binary()
        }

  @type frame ::
          {:started, os_pid :: pos_integer()}
          | {:output, binary()}
          | {:ready, binary()}
          | {:lost, bytes :: non_neg_integer()}
          | {:exited, {:status, 0..255} | {:signal, pos_integer()}}
          | {:error, errno :: integer(), String.t()}
          | {:unknown, binary()}

  @doc """
  The first frame. Fails by `FunctionClauseError` for a stdin of more than #{@stdin_max} bytes.

      iex> start = %{argv: ["/bin/true"], env: [{"A", "b"}], directory: "", grace_ms: 500, stdin: "x"}
      iex> IO.iodata_to_binary(Ringbridge.Server.Wire.start(start))
      <<"s", 1, 500::32, 1::16, 1::16, 1::32, 0, "/bin/true", 0, "A=b", 0, "x">>
  """
  @spec start(start()) :: iodata()
  def start(%{stdin: stdin} = start) when byte_size(stdin) <= @stdin_max do
    argc = length(start.argv)
    envc = length(start.env)

    [
      <<"s", @version, start.grace_ms::32, argc::16, envc::16, byte_size(stdin)::32>>,
      [start.directory, 0],
      for(argument <- start.argv, do: [argument, 0]),
      for({name, value} <- start.env, do: [name, "=", value, 0]),
      stdin
    ]
  end

  @doc "The bytes of a frame to the shepherd, its length not counted: a longer one it does not read."
  @spec frame_max() :: pos_integer()
  def frame_max, do: @frame_max

  @doc "TERM, and after so many milliseconds KILL."
  @spec stop(non_neg_integer()) :: binary()
  def stop(grace_ms), do: <<"t", grace_ms::32>>

  @doc """
  What a frame of the shepherd says.

      iex> Ringbridge.Server.Wire.decode(<<"X", -1::32, 9::32>>)
      {:exited, {:signal, 9}}
      iex> Ringbridge.Server.Wire.decode(<<"E", 2::32, "program">>)
      {:error, 2, "program"}
  """
  @spec decode(binary()) :: frame()
  def decode(<<"S", os_pid::32>>), do: {:started, os_pid}
  def decode(<<"O", bytes::binary>>), do: {:output, bytes}
  def decode(<<"R", bytes::binary>>), do: {:ready, bytes}
  def decode(<<"L", bytes::32>>), do: {:lost, bytes}
  def decode(<<"X", -1::32-signed, signal::32>>), do: {:exited, {:signal, signal}}
  def decode(<<"X", status::32, 0::32>>), do: {:exited, {:status, status}}
  def decode(<<"E", errno::32-signed, text::binary>>), do: {:error, errno, text}
  def decode(other), do: {:unknown, other}
end
