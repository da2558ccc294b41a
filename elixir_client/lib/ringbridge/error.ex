defmodule Ringbridge.Error do
  @moduledoc """
  Why there is no result: one struct, whose `reason` is matched on, and whose message is for people.

  Most reasons are the bridge's own words, the same in every language (docs/errors.md). Some are the client's, for
  what happens where no bridge can speak:

    * `:timeout` - no answer came in time, not even the bridge's `:deadline_exceeded`
    * `:not_connected` - none of the instance's bridges could be reached
    * `:not_started` - there is no instance of that name
    * `{:down, reason}` - the bridge, or the connection to it, ended while the call waited; the job may have run
    * `{:invalid_job, violations}` - a job that is a struct breaks its declaration (`Ringbridge.Job`); it was not sent
    * `{:invalid_result, violations}` - what came back is not the declared result
    * `{:schema_mismatch, why}` - what the bridge's role takes is not what the job declares; it was not sent
    * `{:layout_mismatch, why}` - the bridge goes by another layout (`Ringbridge.LayoutLoader`); it was not sent

  `role` is what was asked for, `node` the bridge that was asked, or `nil`. `again?` says that the request let the bridge begin the
  job more than once (`retry:`, or `dedupe:`, whose run may be another caller's): a refusal may then come after it was begun.

      iex> error = %Ringbridge.Error{reason: {:too_large, 65_536}, role: :echo, node: :"bridge@host"}
      iex> Exception.message(error)
      "echo at bridge@host: the payload is over the limit of 65536 bytes"
  """

  @enforce_keys [:reason]
  defexception [:reason, :role, :node, again?: false]

  @typedoc """
  An atom, or a tuple whose first element is the name. docs/errors.md tells for each what happened, whether the
  job was run, and what to do.
  """
  @type reason ::
          {:overloaded, %{retry_after_ms: non_neg_integer()}}
          | {:circuit_open, %{retry_after_ms: non_neg_integer()}}
          | :deadline_exceeded
          | :cancelled
          | :no_worker
          | :draining
          | {:too_large, limit_bytes :: non_neg_integer()}
          | {:worker_crashed, map()}
          | {:worker_broke, rule :: term()}
          | {:job_failed, code :: 0..65_535, message :: binary()}
          | {:bad_request, why :: term()}
          | {:unauthorized, why :: term()}
          | {:stage, pos_integer(), role :: term(), reason()}
          | :unknown_job
          | :timeout
          | :not_connected
          | :not_started
          | {:down, reason :: term()}
          | {:invalid_job, [Ringbridge.Job.Violation.t(), ...]}
          | {:invalid_result, [Ringbridge.Job.Violation.t(), ...]}
          | {:schema_mismatch, why :: String.t()}
          | {:layout_mismatch, why :: String.t()}

  @type t :: %__MODULE__{reason: reason(), role: term(), node: node() | nil, again?: boolean()}

  # Given before a job begins (docs/errors.md): nothing of it was or will be run.
  @not_run [
    :too_large,
    :bad_request,
    :unauthorized,
    :not_connected,
    :not_started,
    :invalid_job,
    :schema_mismatch,
    :layout_mismatch
  ]

  # So are these, but to a job that waits they are said too; and one whose worker has died waits again, if the request lets
  # it begin again. Another bridge may see them otherwise; a payload too large, or a request that breaks a rule, is so there too.
  @elsewhere [:overloaded, :circuit_open, :no_worker, :draining]

  @doc """
  The name of a reason: itself, or the first element of the tuple.

      iex> Ringbridge.Error.name({:overloaded, %{retry_after_ms: 10}})
      :overloaded
      iex> Ringbridge.Error.name(:draining)
      :draining
  """
  @spec name(reason()) :: atom()
  def name(reason) when is_tuple(reason), do: elem(reason, 0)
  def name(reason), do: reason

  @doc """
  Whether it is certain that nothing of the job was run, so that it may be sent again as it is.

      iex> Ringbridge.Error.not_run?(%Ringbridge.Error{reason: :draining})
      true
      iex> Ringbridge.Error.not_run?(%Ringbridge.Error{reason: {:down, :noconnection}})
      false

  With `retry:` above 0 a job may have been begun before its role had no worker left:

      iex> Ringbridge.Error.not_run?(%Ringbridge.Error{reason: :no_worker, again?: true})
      false
  """
  @spec not_run?(t()) :: boolean()
  # The connection was there, the dispatcher was not: nobody took the job.
  def not_run?(%__MODULE__{reason: {:down, :noproc}}), do: true
  # Of several jobs ({:map, role, i}, {:fan_out, role, i}) the others may have run.
  def not_run?(%__MODULE__{reason: {:stage, 1, role, reason}} = error) when not is_tuple(role),
    do: not_run?(%{error | reason: reason})

  def not_run?(%__MODULE__{reason: reason, again?: again?}) do
    name(reason) in @not_run or (name(reason) in @elsewhere and not again?)
  end

  @doc "Whether another bridge may well take what this one refused."
  @spec elsewhere?(t()) :: boolean()
  def elsewhere?(%__MODULE__{reason: {:down, :noproc}}), do: true

  def elsewhere?(%__MODULE__{reason: {:stage, 1, role, reason}}) when not is_tuple(role),
    do: name(reason) in @elsewhere

  def elsewhere?(%__MODULE__{reason: reason}), do: name(reason) in @elsewhere

  @doc """
  The milliseconds after which the bridge says that it is worth to try again, or `nil`.

      iex> Ringbridge.Error.retry_after_ms(%Ringbridge.Error{reason: {:overloaded, %{retry_after_ms: 40}}})
      40
  """
  @spec retry_after_ms(t()) :: non_neg_integer() | nil
  def retry_after_ms(%__MODULE__{reason: {_name, %{retry_after_ms: ms}}}), do: ms
  def retry_after_ms(%__MODULE__{}), do: nil

  @impl Exception
  def message(%__MODULE__{reason: reason, role: role, node: node}),
    do: where(role, node) <> say(reason)

  defp where(nil, nil), do: ""
  defp where(role, nil), do: "#{text(role)}: "
  defp where(nil, node), do: "#{node}: "
  defp where(role, node), do: "#{text(role)} at #{node}: "

  defp say({:overloaded, %{retry_after_ms: ms}}), do: "overloaded; try again after #{ms} ms"

  defp say({:circuit_open, %{retry_after_ms: ms}}) do
    "its workers failed too often of late (circuit open); try again after #{ms} ms"
  end

  defp say(:deadline_exceeded), do: "the job's timeout passed, while it waited or ran"
  defp say(:cancelled), do: "somebody cancelled the job"
  defp say(:no_worker), do: "the role has no worker that will come back"
  defp say(:draining), do: "the role or its bridge takes no new jobs (draining)"
  defp say({:too_large, bytes}), do: "the payload is over the limit of #{bytes} bytes"
  defp say({:worker_crashed, how}) when is_map(how), do: "its worker died in the job#{death(how)}"
  defp say({:worker_broke, rule}), do: "its worker broke a rule and was ended: #{text(rule)}"
  defp say({:job_failed, code, message}), do: "the job failed with code #{code}: #{text(message)}"
  defp say({:bad_request, why}), do: "bad request: #{text(why)}"
  defp say({:unauthorized, why}), do: "not allowed: #{text(why)}"
  defp say({:stage, at, role, reason}), do: "stage #{at} (#{text(role)}): #{say(reason)}"
  defp say(:unknown_job), do: "no such job, or it has ended"
  defp say(:timeout), do: "no answer came in time; the job was given up"

  defp say(:not_connected) do
    "no bridge can be reached: is the name right, is the cookie the same, does `epmd -names` show it?"
  end

  defp say(:not_started),
    do: "no such instance: is {Ringbridge, name: ..} in the supervision tree?"

  defp say({:down, :noproc}), do: "the node is up but is no bridge, or its dispatcher begins anew"
  defp say({:down, :noconnection}), do: "the connection was lost; the job may have run"
  defp say({:down, reason}), do: "the bridge ended (#{text(reason)}); the job may have run"
  defp say({:invalid_job, violations}), do: Enum.map_join(violations, "; ", &to_string/1)

  defp say({:invalid_result, violations}),
    do: "the worker's answer: " <> Enum.map_join(violations, "; ", &to_string/1)

  defp say({:schema_mismatch, why}), do: "not sent, the role differs: #{why}"
  defp say({:layout_mismatch, why}), do: "not sent: #{why}"
  # A newer bridge may know more.
  defp say(other), do: text(other)

  defp death(%{oom: true}), do: " (out of memory)"
  defp death(%{signal: signal}) when signal != nil, do: " (signal #{text(signal)})"
  defp death(%{status: status}) when status != nil, do: " (exit status #{text(status)})"
  defp death(_map), do: ""

  defp text(text) when is_binary(text),
    do: if(String.printable?(text), do: text, else: inspect(text))

  defp text(name) when is_atom(name), do: Atom.to_string(name)
  defp text(term), do: inspect(term)
end
