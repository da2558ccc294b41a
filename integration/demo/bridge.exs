defmodule Demo.Bridge do
  @moduledoc "A connection to a bridge, and the one call that everything goes through."

  # A VM that was started without a name makes itself a hidden node that listens nowhere.
  def join(bridge) do
    name = :"demo#{System.pid()}@127.0.0.1"
    options = %{name_domain: :longnames, hidden: true, dist_listen: false}
    {:ok, _pid} = :net_kernel.start(name, options)

    unless Node.connect(bridge), do: stop("no connection to #{bridge}")
    release = "OTP #{System.otp_release()}, Elixir #{System.version()}"
    IO.puts("\n#{name} (#{release}) is connected to #{bridge}")
    IO.puts("A call is: GenServer.call({Ringbridge.JobDispatcher, #{inspect(bridge)}}, request)")
  end

  @doc "The answer of a worker, and how long it ran, in us."
  def submit(bridge, role, payload, options \\ %{}) do
    request = {:submit, role, payload, Map.put(options, :detail, true)}

    case GenServer.call({Ringbridge.JobDispatcher, bridge}, request, 120_000) do
      {:ok, answer, detail} -> {answer, detail.run_us}
      {:error, reason} -> stop("#{role}: #{inspect(reason)}")
    end
  end

  def stop(why) do
    IO.puts(:stderr, "demo: #{why}")
    System.halt(1)
  end
end
