# A BEAM whose processes call the bridge. One command a line, one answer a line:
#
#     call TAG PAYLOAD     a process of its own calls; "ok"
#     result TAG MS        what it got: "ok BYTES", "error REASON", "exit REASON", or "waits" after MS
#     once PAYLOAD         a call of ours, with its answer as of `result`
#     in_flight            how many jobs the family's worker has
#     open                 how many jobs the role has, those that wait included
{:ok, _} = Application.ensure_all_started(:logger)
[node] = System.argv()
server = {Ringbridge.JobDispatcher, String.to_atom(node)}

word = fn
  reason when is_atom(reason) -> reason
  reason -> reason |> elem(0)
end

call = fn payload ->
  try do
    case GenServer.call(server, {:submit, :family, payload}, 60_000) do
      {:ok, bytes} -> "ok #{byte_size(bytes)}"
      {:error, reason} -> "error #{word.(reason)}"
    end
  catch
    :exit, {reason, {GenServer, :call, _}} -> "exit #{word.(reason)}"
  end
end

loop = fn loop, tasks ->
  case IO.gets("") |> to_string() |> String.trim() |> String.split(" ", parts: 3) do
    ["call", tag, payload] ->
      task = Task.async(fn -> call.(payload) end)
      IO.puts("ok")
      loop.(loop, Map.put(tasks, tag, task))

    ["result", tag, ms] ->
      case Task.yield(tasks[tag], String.to_integer(ms)) do
        {:ok, said} -> IO.puts(said)
        nil -> IO.puts("waits")
      end

      loop.(loop, tasks)

    ["once" | payload] ->
      IO.puts(call.(Enum.join(payload, " ")))
      loop.(loop, tasks)

    ["in_flight"] ->
      registry = put_elem(server, 0, Ringbridge.WorkerRegistry)
      {:ok, role} = GenServer.call(registry, {:lookup, :family}, 60_000)
      IO.puts(role.workers |> Enum.map(& &1.in_flight) |> Enum.sum())
      loop.(loop, tasks)

    ["open"] ->
      {:ok, jobs} = GenServer.call(server, {:jobs, :family}, 60_000)
      IO.puts(length(jobs))
      loop.(loop, tasks)

    [""] ->
      System.halt(0)
  end
end

IO.puts("ready")
loop.(loop, %{})
