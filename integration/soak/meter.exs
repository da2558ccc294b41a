defmodule Ringbridge.Soak.Meter do
  @moduledoc """
  What the bridge and this VM hold, sampled; and whether it has grown.

  Under load a figure goes up and down, so quarters of the run are compared by their medians. The bridge's
  memory is its own (RssAnon): what is shared with workers (RssShmem) is bounded by the pools and regions of the
  configuration, and is compared too.
  """

  alias Ringbridge.{Lab, Proc}

  @type sample :: %{atom() => integer()}

  @mib 1_048_576
  # What a median may have grown by, from the second quarter to the last. A healthy run of 40 s stays within
  # 4 MiB of its own memory and one descriptor; buffers for 25 callers' answers of 1 MiB explain what more is
  # allowed. So 8 s of it see a leak of about 4 KiB a job, and a minute one of 300 bytes.
  @tolerance %{
    descriptors: 30,
    anonymous: 12 * @mib,
    shared: 24 * @mib,
    vm_memory: 32 * @mib,
    vm_binary: 24 * @mib,
    vm_processes: 20
  }

  @doc """
  What the bridge's malloc is told, so that its own memory is what it uses. By itself glibc raises the size from which it maps
  memory to that of the largest piece ever freed (mallopt(3)): then answers of a MiB lie among small things and leave holes that
  are never given back, more of them the busier the machine is.
  """
  @spec environment() :: [{String.t(), String.t()}]
  def environment,
    do: [{"MALLOC_MMAP_THRESHOLD_", "131072"}, {"MALLOC_TRIM_THRESHOLD_", "131072"}]

  @spec sample(pos_integer()) :: sample()
  def sample(bridge) do
    status = File.read!("/proc/#{bridge}/status")

    %{
      descriptors: Proc.descriptors(bridge),
      anonymous: kib(status, "RssAnon"),
      shared: kib(status, "RssShmem"),
      vm_memory: :erlang.memory(:total),
      vm_binary: :erlang.memory(:binary),
      vm_processes: :erlang.system_info(:process_count)
    }
  end

  defp kib(status, key) do
    [_, kib] = Regex.run(~r/#{key}:\s+(\d+) kB/, status)
    String.to_integer(kib) * 1_024
  end

  @doc "What has grown by more than it may, as texts."
  @spec grown([sample()]) :: [String.t()]
  def grown(samples) do
    for {key, {second, last}} <- quarters(samples),
        last - second > @tolerance[key],
        do: "#{key} grew from #{second} to #{last} between the second and the last quarter"
  end

  @doc "The medians of the second and the last quarter of each figure."
  @spec quarters([sample()]) :: %{atom() => {integer(), integer()}}
  def quarters(samples) do
    quarter = div(length(samples), 4)
    second = Enum.slice(samples, quarter, quarter)
    last = Enum.take(samples, -quarter)
    Map.new(@tolerance, fn {key, _} -> {key, {median(second, key), median(last, key)}} end)
  end

  defp median(samples, key) do
    samples |> Enum.map(& &1[key]) |> Enum.sort() |> Enum.at(div(length(samples), 2))
  end

  @doc "What must be the same before and after, when nothing is under way."
  @spec at_rest(pos_integer()) :: sample()
  def at_rest(bridge) do
    settled(fn ->
      for pid <- Process.list(), do: :erlang.garbage_collect(pid)

      %{
        descriptors: Proc.descriptors(bridge),
        children: length(Proc.descendants(bridge)),
        mapped: length(Proc.memfds([bridge])),
        vm_processes: :erlang.system_info(:process_count)
      }
    end)
  end

  # The lines of the bridge's log that Program keeps are in it.
  @binary_tolerance 8 * @mib

  @doc """
  What binaries this VM holds when nothing is under way. An answer that comes after its alias was given up can stay
  for good in OTP 25 (docs/otp-releases.md); a MiB each is not overlooked.
  """
  @spec binaries_at_rest() :: non_neg_integer()
  def binaries_at_rest do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    :erlang.memory(:binary)
  end

  @spec kept?(non_neg_integer(), non_neg_integer()) :: boolean()
  def kept?(before, later), do: later - before > @binary_tolerance

  # The same for half a second: what is closed in the wake of a restart is closed soon.
  defp settled(look) do
    {:ok, seen} = Agent.start_link(fn -> {nil, 0} end)

    Lab.wait_until("the bridge is at rest", 20_000, fn ->
      Process.sleep(50)
      now = look.()

      Agent.get_and_update(seen, fn
        {^now, times} -> {times >= 10, {now, times + 1}}
        _ -> {false, {now, 0}}
      end)
    end)

    {now, _} = Agent.get(seen, & &1)
    Agent.stop(seen)
    now
  end

  @spec mib(integer()) :: String.t()
  def mib(bytes), do: :erlang.float_to_binary(bytes / @mib, decimals: 0) <> " MiB"
end
