defmodule Ringbridge.Inspect.Watch do
  @moduledoc """
  Looks at a bridge again and again: one turn is a look, and what is to be shown after it.

  A bridge that is gone stays on the screen as it was last seen, with a line that says since when, until it is back: a restart
  interrupts nothing. The loop is the task's; a turn is a function of what was before and of what the bridge answered.
  """
  alias Ringbridge.Inspect, as: Look
  alias Ringbridge.Inspect.{Page, Table, Units}
  alias Ringbridge.{Error, Reach}

  defstruct [:node, :role, :look, :rates, :error, :lost_us]

  @type t :: %__MODULE__{
          node: node(),
          role: String.t() | nil,
          look: Look.t() | nil,
          rates: Look.rates() | nil,
          error: Error.t() | :no_role | nil,
          lost_us: integer() | nil
        }

  @doc "Before the first look."
  @spec new(node(), String.t() | nil) :: t()
  def new(node, role), do: %__MODULE__{node: node, role: role}

  @doc "The next state, by an answer of `Ringbridge.Inspect.look/1` at this time (monotonic, microseconds)."
  @spec turn(t(), {:ok, Look.t()} | {:error, Error.t()}, integer()) :: t()
  def turn(watch, {:ok, whole}, now_us) do
    case Look.only(whole, watch.role) do
      {:ok, look} ->
        %{watch | look: look, rates: Look.rates(watch.look, look), error: nil, lost_us: nil}

      :error ->
        %{watch | error: :no_role, lost_us: watch.lost_us || now_us, look: nil, rates: nil}
    end
  end

  def turn(watch, {:error, error}, now_us),
    do: %{watch | error: error, lost_us: watch.lost_us || now_us}

  @doc "The page of a state."
  @spec lines(t(), integer()) :: [Table.line()]
  def lines(%{error: nil} = watch, _now_us), do: Page.lines(watch.look, watch.rates)

  def lines(%{look: nil} = watch, now_us), do: [gone(watch, now_us)]

  def lines(watch, now_us) do
    stale = for line <- Page.lines(watch.look, nil), do: [{:faint, Table.render(line, false)}]
    [gone(watch, now_us), [] | stale]
  end

  defp gone(watch, now_us) do
    since = Units.duration(div(now_us - watch.lost_us, 1_000))
    [{:red, Table.clean("#{why(watch)}. Trying again, for #{since} now")}]
  end

  defp why(%{error: :no_role} = watch), do: "#{watch.node} has no role #{watch.role}"
  defp why(%{error: error}), do: Reach.words(error)
end
