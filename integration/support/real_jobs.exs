# The kinds of work that come with the project, declared as docs/worldgen.md, simulation.md, pathfinding.md and analytics.md lay
# them down: payloads of packed bytes, a tuple, a map; results of packed bytes, a picture, a tuple, a map with binaries for keys.

defmodule RealJobs.Tile do
  @moduledoc "What both operations of worldgen take: which tile, and by which noise."

  defmacro tile do
    quote do
      payload :packed do
        field :version, :u16, value: 1
        field :octaves, :u16, in: 1..16, default: 4
        field :width, :u32, in: 1..8192
        field :height, :u32, in: 1..8192
        field :part_rows, :u32, default: 0
        field :seed, :i64, default: 0
        field :x, :f64, default: 0.0
        field :y, :f64, default: 0.0
        field :step, :f64, above: 0, default: 0.01
        field :lacunarity, :f64, in: {1.0, 8.0}, default: 2.0
        field :gain, :f64, above: 0, max: 1.0, default: 0.5
      end
    end
  end
end

defmodule RealJobs.Heights do
  @moduledoc "worldgen, opcode 0: a tile of terrain as heights."
  use Ringbridge.Job, role: :worldgen, opcode: 0
  import RealJobs.Tile

  tile()

  result :packed do
    field :heights, {:list, {:f64, in: {-1.0, 1.0}}}
  end

  part :packed do
    field :first_row, :u32
    field :rows, :u32
    field :heights, {:list, {:f64, in: {-1.0, 1.0}}}
  end
end

defmodule RealJobs.Picture do
  @moduledoc "worldgen, opcode 1: the same as a PNG."
  use Ringbridge.Job, role: :worldgen, opcode: 1
  import RealJobs.Tile

  tile()

  result :value do
    field :png, :binary, size: {8, nil}
  end
end

defmodule RealJobs.Body do
  @moduledoc "A body of the solar system, in the request."
  use Ringbridge.Job.Record

  fields :packed do
    field :id, :u32
    pad 4
    field :gm, :f64, min: 0
    field :position, {:array, :f64, 3}
    field :velocity, {:array, {:f64, in: {-299_792.458, 299_792.458}}, 3}
  end
end

defmodule RealJobs.Moved do
  @moduledoc "A body of the solar system, in the answer."
  use Ringbridge.Job.Record

  fields :packed do
    field :id, :u32
    pad 4
    field :position, {:array, :f64, 3}
    field :velocity, {:array, :f64, 3}
  end
end

defmodule RealJobs.Orbits do
  @moduledoc "simulation, opcode 0: the solar system, or any bodies, as exactly as doubles can."
  use Ringbridge.Job, role: :simulation, op: :orbits, opcode: 0

  payload :packed do
    field :version, :u16, value: 1
    count :bodies, :u16
    field :flags, :u32, in: 0..1, default: 0
    field :start, :f64, default: 2_451_545.0
    field :span, :f64, in: {-365_250.0, 365_250.0}
    field :bodies, {:list, RealJobs.Body}, size: 1..64
  end

  result :packed do
    field :version, :u16, value: 1
    count :bodies, :u16
    field :flags, :u32
    field :end, :f64
    field :span, :f64
    field :energy_error, :f64
    field :steps, :u64
    field :evaluations, :u64
    field :bodies, {:list, RealJobs.Moved}, size: 1..64
  end
end

defmodule RealJobs.Cluster do
  @moduledoc "simulation, opcode 1: a Plummer sphere from a seed, by a tree."
  use Ringbridge.Job, role: :simulation, op: :cluster, opcode: 1

  payload :packed do
    field :version, :u16, value: 1
    field :flags, :u16, value: 1
    field :bodies, :u32, in: 1..4_194_304
    field :steps, :u32, max: 1_000_000, default: 0
    field :returned, :u32, default: 0
    field :sampled, :u32, max: 65_536, default: 0
    pad 4
    field :step, :f64, in: {-1.0e30, 1.0e30}, default: 0.01
    field :theta, :f64, in: {0.0, 0.9}, default: 0.5
    field :softening, :f64, in: {1.0e-9, 1.0e30}, default: 0.01
    field :seed, :u64, default: 1
  end

  result :packed do
    field :version, :u16, value: 1
    field :flags, :u16
    field :bodies, :u32
    field :steps, :u32
    field :returned, :u32
    field :sampled, :u32
    pad 4
    field :time, :f64
    field :energy_before, :f64
    field :energy_after, :f64
    field :momentum_gained, :f64
    field :angular_momentum_gained, :f64
    field :error_rms, :f64
    field :error_largest, :f64
    field :with_bodies, :u64
    field :with_cells, :u64
    field :states, {:list, :f64}
  end

  @impl Ringbridge.Job
  def validate(%{returned: returned, bodies: bodies}) when returned > bodies,
    do: {:error, [:returned], "at most the number of bodies"}

  def validate(%{sampled: sampled, bodies: bodies}) when sampled > bodies,
    do: {:error, [:sampled], "at most the number of bodies"}

  def validate(_job), do: :ok
end

defmodule RealJobs.Place do
  @moduledoc "Degrees: latitude, longitude."
  use Ringbridge.Job.Record

  fields :tuple do
    field :latitude, :number, in: {-90, 90}
    field :longitude, :number, in: {-180, 180}
  end
end

defmodule RealJobs.Route do
  @moduledoc "pathfinding, opcode 0: the shortest way by sea."
  use Ringbridge.Job, role: :pathfinding, opcode: 0

  payload :tuple do
    field :from, RealJobs.Place
    field :to, RealJobs.Place
  end

  result :tuple do
    field :nautical_miles, :float, min: 0.0
    field :points, {:list, RealJobs.Place}, size: {2, nil}
  end
end

defmodule RealJobs.Query do
  @moduledoc "analytics, opcode 0: a question about flights."
  use Ringbridge.Job, role: :analytics, opcode: 0

  @compare {:atom, [:==, :!=, :<, :<=, :>, :>=, :in]}

  payload :map do
    field :table, {:atom, [:flights, :airlines, :airports, :planes, :weather]}, optional: true
    field :where, {:list, {:tuple, [:atom, @compare, :any]}}, optional: true
    field :group_by, {:list, :atom}, optional: true

    field :select,
          {:list,
           {:one_of,
            [:atom, {:tuple, [:atom, :atom]}, {:tuple, [:atom, :atom, {:float, in: {0.0, 1.0}}]}]}},
          size: {1, nil}

    field :order_by, {:list, {:tuple, [{:integer, min: 0}, {:atom, [:asc, :desc]}]}},
      optional: true

    field :limit, :integer, min: 1, optional: true
  end

  result :map do
    field :columns, {:list, :binary}, key: "columns"
    field :rows, {:list, {:list, :any}}, key: "rows"
  end
end
