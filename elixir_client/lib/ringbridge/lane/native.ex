defmodule Ringbridge.Lane.Native do
  @moduledoc false
  # The NIF's functions (csrc/nif/), and nothing else, so that this module is never long in use: no process stands in
  # its code while it waits, and none is killed by :code.purge/1.

  @on_load :load
  @compile {:autoload, false}

  @typep lane :: reference()

  # Never fails: a module that does not load would take calls down with it. What went wrong is told by status/0.
  @doc false
  def load do
    :persistent_term.put(__MODULE__, load_nif())
    :ok
  end

  defp load_nif do
    with path when is_list(path) <- :code.priv_dir(:ringbridge),
         file = :filename.join(path, ~c"ringbridge_nif"),
         true <- :filelib.is_regular(file ++ ~c".so") || {:error, :not_built},
         :ok <- :erlang.load_nif(file, 0) do
      :ok
    else
      {:error, {_reason, text}} -> {:error, List.to_string(text)}
      {:error, _not_built_or_no_application} -> {:error, :not_built}
    end
  end

  @doc "Whether the library is there; `:not_built` if it never was compiled, else what the loader said."
  @spec status() :: :ok | {:error, :not_built | String.t()}
  def status, do: :persistent_term.get(__MODULE__, {:error, :not_built})

  @spec about() :: {version :: non_neg_integer(), digest :: binary()}
  def about, do: not_loaded()

  @spec open(socket :: binary(), token :: binary(), non_neg_integer()) ::
          {:ok, lane()} | {:error, {:timeout | :refused | :error, String.t()}}
  def open(_socket, _token, _timeout_ms), do: not_loaded()

  @spec submit_raw(lane(), reference(), role :: binary(), integer(), binary()) ::
          :ok | :near | :full | :too_large | :closed
  def submit_raw(_lane, _ref, _role, _timeout_ms, _payload), do: not_loaded()

  @spec submit_term(lane(), reference(), [binary()]) ::
          :ok | :near | :full | :too_large | :closed
  def submit_term(_lane, _ref, _parts), do: not_loaded()

  @spec cancel(lane(), reference()) :: :ok | :answered
  def cancel(_lane, _ref), do: not_loaded()

  @spec copy(held :: reference(), :copy | :copy_term) :: binary()
  def copy(_held, _kind), do: not_loaded()

  @spec drain(lane()) :: :more | :empty | :ended
  def drain(_lane), do: not_loaded()

  @spec look(lane(), reference()) :: :again | :ok
  def look(_lane, _ref), do: not_loaded()

  @spec park(lane(), reference()) :: :ok | :more | :ended
  def park(_lane, _wake), do: not_loaded()

  @spec close(lane(), reason :: term()) :: :ok
  def close(_lane, _reason), do: not_loaded()

  @spec figures(lane()) :: tuple()
  def figures(_lane), do: not_loaded()

  @spec telemetry(lane()) ::
          {:ok, now_ns :: non_neg_integer(), binary()} | :closed | :torn | :error
  def telemetry(_lane), do: not_loaded()

  # --- A worker's end of a link, which belongs to the process that opened it (Ringbridge.BeamWorkerLoop.Link)

  @typep link :: reference()
  @type job ::
          {:job, id :: pos_integer(), opcode :: 0..65_535, left_ms :: integer(), priority :: 0..3,
           trace :: binary() | :undefined, parts :: integer(), progress :: 0..1,
           {:raw | :term, binary()}}

  @doc "Version and digest of the layout of links."
  @spec worker_about() :: {version :: non_neg_integer(), digest :: binary()}
  def worker_about, do: not_loaded()

  @spec worker_open(socket :: binary(), token :: binary(), non_neg_integer()) ::
          {:ok, link()} | {:error, String.t()}
  def worker_open(_socket, _token, _timeout_ms), do: not_loaded()

  @spec worker_bytes_max(link()) :: pos_integer() | :over
  def worker_bytes_max(_link), do: not_loaded()

  @spec worker_greet(link(), binary(), non_neg_integer(), binary(), binary()) ::
          :ok | :over | {:error, String.t()}
  def worker_greet(_link, _kit, _version, _role, _ops), do: not_loaded()

  @spec worker_next(link(), wake :: reference()) ::
          job() | {:cancelled, pos_integer()} | :parked | :more | :drained | :over | :broke
  def worker_next(_link, _wake), do: not_loaded()

  @spec worker_watch(link(), wake :: reference(), sent :: non_neg_integer()) ::
          {cancelled :: 0..1, parts :: non_neg_integer()} | :over
  def worker_watch(_link, _wake, _sent), do: not_loaded()

  @spec worker_say(link(), pos_integer(), 0..4, 0..65_535, non_neg_integer(), 0..1, binary()) ::
          :ok | :full | :too_large | :over | :broke
  def worker_say(_link, _job, _status, _code, _run_us, _term, _bytes), do: not_loaded()

  @spec worker_pulse(link()) :: :ok | :over
  def worker_pulse(_link), do: not_loaded()

  @spec worker_beat(link(), ready :: 0..1) :: :ok | :over
  def worker_beat(_link, _ready), do: not_loaded()

  @spec worker_trim(link()) :: :more | :ok | :over
  def worker_trim(_link), do: not_loaded()

  @spec worker_close(link()) :: :ok
  def worker_close(_link), do: not_loaded()

  # Not no_return(): dialyzer would take it for what the functions do when the library is there.
  @spec not_loaded() :: term()
  defp not_loaded, do: :erlang.nif_error(:not_loaded)
end
