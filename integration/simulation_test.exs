defmodule Ringbridge.SimulationTest do
  @moduledoc "The solar system by a C worker, held against JPL's DE421 (docs/simulation.md)."
  use Ringbridge.BridgeCase

  setup_all do
    directory = Path.join(Lab.root(), "build/test/solar-#{System.pid()}")
    on_exit(fn -> File.rm_rf!(directory) end)
    arguments = ["-m", "integration.solar.states", "--out", directory]
    options = [cd: Lab.root(), stderr_to_stdout: true]
    {said, 0} = System.cmd(Lab.python(), arguments, options)
    assert said =~ "simulations"

    {:ok, terms} = :file.consult(Path.join(directory, "index.terms"))
    {:bodies, bodies} = List.keyfind(terms, :bodies, 0)
    jobs = for {:simulation, job} <- terms, do: job
    {:ok, bodies: Map.new(bodies), jobs: jobs, directory: directory}
  end

  test "each body of each job ends within the derived bound of JPL's position", context do
    assert length(context.jobs) >= 6

    for job <- context.jobs do
      payload = File.read!(Path.join(context.directory, job.payload))
      assert {:ok, answer} = submit(context.node, :simulation, payload, %{}, 60_000)
      positions = positions(answer)
      assert Map.keys(positions) == Map.keys(context.bodies)

      for {id, bound_km} <- job.bound_km do
        error_km = distance(positions[id], job.reference[id])

        assert error_km <= bound_km,
               "#{job.name}: #{context.bodies[id]} ends #{error_km} km from JPL's position, " <>
                 "beyond the bound of #{bound_km} km"
      end
    end
  end

  test "a year without relativity is off by what relativity does, not by nothing", context do
    # If this fails the comparison compares the reference with itself.
    job = Enum.find(context.jobs, &(&1.span_days == 365.25 and not &1.relativistic))
    payload = File.read!(Path.join(context.directory, job.payload))
    assert {:ok, answer} = submit(context.node, :simulation, payload, %{}, 60_000)
    [{venus, _}] = Enum.filter(context.bodies, fn {_id, name} -> name == "Venus" end)
    assert distance(positions(answer)[venus], job.reference[venus]) > 20
  end

  test "a payload that is no job is refused with the rule in words", %{node: node} do
    assert {:error, {:job_failed, code, message}} = submit(node, :simulation, "too short")
    assert code in 1..65_535
    assert message =~ "24 bytes"
  end

  test "a job of a thousand years gives way when its caller gives up", %{node: node} = context do
    <<head::binary-size(16), _span::binary-size(8), bodies::binary>> =
      File.read!(Path.join(context.directory, hd(context.jobs).payload))

    payload = head <> <<365_000.0::float-little>> <> bodies
    assert {:timeout, _} = catch_exit(submit(node, :simulation, payload, %{}, 200))
    await_idle(node)
  end

  test "a cluster is generated and moved, and tells how far it is from all pairs", %{node: node} do
    payload =
      <<1::16-little, 1::16-little, 20_000::32-little, 1::32-little, 0::32, 64::32-little, 0::32,
        0.01::float-little, 0.5::float-little, 0.01::float-little, 1::64-little>>

    assert {:ok, answer} = submit(node, :simulation, payload, [opcode: 1], 60_000)

    <<1::16-little, 1::16-little, 20_000::32-little, _::128, time::float-little,
      before::float-little, later::float-little, _::binary-size(16), rms::float-little,
      _::binary-size(24)>> = answer

    assert time == 0.01
    assert abs(later / before - 1) < 1.0e-4
    assert rms > 0 and rms < 0.05 * 0.125
  end

  defp positions(<<1::16-little, count::16-little, _::binary-size(44), bodies::binary>>) do
    positions =
      for <<id::32-little, _::32, x::float-little, y::float-little, z::float-little,
            _velocity::binary-size(24) <- bodies>>,
          into: %{},
          do: {id, {x, y, z}}

    ^count = map_size(positions)
    positions
  end

  defp distance({x, y, z}, {rx, ry, rz, _, _, _}) do
    :math.sqrt(:math.pow(x - rx, 2) + :math.pow(y - ry, 2) + :math.pow(z - rz, 2))
  end
end
