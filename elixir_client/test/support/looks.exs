defmodule Ringbridge.Looks do
  @moduledoc "A look at a bridge, as one answers `:status` (docs/inspection.md), for tests to change."

  @counts %{ok: 0, overloaded: 0, job_failed: 0, worker_crashed: 0}

  def look(fields \\ []) do
    struct!(
      %Ringbridge.Inspect{
        node: :"bridge@127.0.0.1",
        status: status(),
        links: [],
        at: ~U[2026-11-21 12:00:00Z],
        at_us: 0
      },
      fields
    )
  end

  def status(changed \\ %{}) do
    Map.merge(
      %{
        node: "bridge@127.0.0.1",
        version: "0.1.0",
        os_pid: 4_711,
        uptime_ms: 65_000,
        layout: %{version: "3.1", digest: "aa"},
        connections: ["caller@127.0.0.1"],
        hops: %{
          samples: 0,
          socket_to_queue_us: 0.0,
          queue_to_ring_us: 0.0,
          ring_to_answer_us: 0.0,
          worker_run_us: 0.0,
          answer_to_socket_us: 0.0
        },
        relay: %{
          accepted: 0,
          in_flight: 0,
          answered: @counts,
          refused: @counts,
          bytes_in: 0,
          bytes_out: 0
        },
        roles: [role("echo"), role("sleep")],
        workers: [worker(1, :echo), worker(2, :sleep)],
        recent_errors: []
      },
      changed
    )
  end

  def role(name, changed \\ %{}) do
    Map.merge(
      %{
        name: name,
        state: :running,
        breaker: :closed,
        workers_ready: 1,
        queued: 0,
        depth_max: 4_096,
        accepted: 0,
        answered: @counts,
        refused: @counts,
        overloaded_by: %{role_depth: 0},
        deferred: 0,
        upgrade: nil
      },
      changed
    )
  end

  def worker(id, role, changed \\ %{}) do
    Map.merge(
      %{
        id: id,
        role: role,
        index: 0,
        state: :ready,
        breaker: :closed,
        os_pid: 29_814,
        remote: nil,
        kit: "c",
        kit_version: "1.3",
        credit: 1_024,
        in_flight: 0,
        done: 0,
        lost: 0,
        silent_ms: 250,
        restarts: 0,
        last_error: nil,
        pid: self(),
        link: %{slots: 1_024, result_bytes: 67_108_864},
        health: %{
          ready: true,
          waiting: 0,
          failed: 0,
          last_code: 0,
          last_run_us: 0,
          pulses: 0,
          still_ms: 0
        }
      },
      changed
    )
  end
end
