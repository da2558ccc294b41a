defmodule Ringbridge.Worker do
  @moduledoc """
  A worker as its bridge tells of it: what `Ringbridge.WorkerRegistry` gives.

  `id` is the bridge's number for it, and `node` the bridge; `pid` is what can be monitored, and killed by an administrator. What is not known,
  or not yet, is nil. The fields are those of `:list` (docs/operations.md, docs/health.md); what a newer bridge tells beside them is in `more`.
  """

  @fields [
    :id,
    :role,
    :index,
    :state,
    :pid,
    :os_pid,
    :attached,
    :remote,
    :kit,
    :kit_version,
    :layout_version,
    :operations,
    :encodings,
    :link,
    :credit,
    :in_flight,
    :placed,
    :begun,
    :done,
    :lost,
    :service_us,
    :restarts,
    :last_error,
    :breaker,
    :silent_ms,
    :health,
    :said
  ]
  @enforce_keys [:node, :id, :role, :state]
  defstruct [:node, more: %{}] ++ @fields

  @type operation :: %{opcode: 0..65_535, name: binary(), takes: [:raw | :term | :parts]}

  @type t :: %__MODULE__{
          node: node(),
          id: non_neg_integer(),
          role: atom(),
          index: non_neg_integer() | nil,
          state: atom(),
          pid: pid() | nil,
          os_pid: pos_integer() | nil,
          attached: term(),
          remote: map() | nil,
          kit: binary() | nil,
          kit_version: binary() | nil,
          layout_version: binary() | nil,
          operations: [operation()] | nil,
          encodings: [atom()] | nil,
          link: map() | nil,
          credit: non_neg_integer() | nil,
          in_flight: non_neg_integer() | nil,
          placed: non_neg_integer() | nil,
          begun: non_neg_integer() | nil,
          done: non_neg_integer() | nil,
          lost: non_neg_integer() | nil,
          service_us: non_neg_integer() | nil,
          restarts: non_neg_integer() | nil,
          last_error: binary() | nil,
          breaker: atom() | nil,
          silent_ms: non_neg_integer() | nil,
          health: map() | nil,
          said: map() | nil,
          more: map()
        }

  @doc false
  @spec new(node(), map()) :: t()
  def new(node, %{id: _, role: _, state: _} = told) do
    {known, more} = Map.split(told, @fields)
    struct!(__MODULE__, known |> Map.put(:node, node) |> Map.put(:more, more))
  end
end
