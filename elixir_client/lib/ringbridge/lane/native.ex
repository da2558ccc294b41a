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

  # Not no_return(): dialyzer would take it for what the functions do when the library is there.
  @spec not_loaded() :: term()
  defp not_loaded, do: :erlang.nif_error(:not_loaded)
end
