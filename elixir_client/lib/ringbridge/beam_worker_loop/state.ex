defmodule Ringbridge.BeamWorkerLoop.State do
  @moduledoc false
  # What the process of a loop keeps. Registration, Lanes and Links take it and give it back; each says which of it is its own.
  alias Ringbridge.BeamWorkerLoop.{Connecting, Lanes, Links}

  @enforce_keys [:options, :state, :counts]
  defstruct [
    :options,
    # The user's, of init/1: given to every job.
    :state,
    # Registration: where it is with the bridge.
    phase: :away,
    connecting: nil,
    hello: nil,
    # Of whom it was told last that the bridge is there: the name that was greeted, then the desk.
    watch: nil,
    desk: nil,
    heart: nil,
    # What the bridge's welcome allows.
    bounds: nil,
    welcome_ms: nil,
    pauses: 0,
    ready: true,
    # Lanes: jobs that come as messages.
    lanes: %{},
    running: %{},
    done: 0,
    # Links: slots whose jobs come over shared memory.
    links: %{},
    counts: nil,
    links_lost: 0,
    link_lost_ms: nil
  ]

  @type phase :: :away | :greeting | :serving | :leaving

  @type t :: %__MODULE__{
          options: map(),
          state: term(),
          phase: phase(),
          connecting: Connecting.t() | nil,
          hello: reference() | nil,
          watch: reference() | nil,
          desk: pid() | nil,
          heart: pid() | nil,
          bounds: map() | nil,
          welcome_ms: integer() | nil,
          pauses: non_neg_integer(),
          ready: boolean(),
          lanes: Lanes.lanes(),
          running: Lanes.running(),
          done: non_neg_integer(),
          links: Links.links(),
          counts: :counters.counters_ref(),
          links_lost: non_neg_integer(),
          link_lost_ms: integer() | nil
        }

  @spec new(map(), term()) :: t()
  def new(options, state),
    do: %__MODULE__{options: options, state: state, counts: Links.counts(options.slots)}
end
