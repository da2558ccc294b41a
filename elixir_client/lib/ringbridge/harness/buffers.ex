defmodule Ringbridge.Harness.Buffers do
  @moduledoc """
  The harness's checks of what holds payloads and jobs: rings, queues, blocks of every size.
  """
  alias Ringbridge.Harness.{Gate, Payload, Target}
  alias Ringbridge.{Error, InMemoryRing}

  @model_steps 20_000

  # Where something changes: an empty one; a binary that BEAM shares from 65 bytes on; what is inline in an envelope of 128 bytes; blocks
  # and pages of 4 KiB; frames and fragments of 64 KiB; a MiB.
  @edges [0, 16, 64, 96, 128, 256, 4_096, 8_192, 65_536, 131_072, 1_048_576]

  @doc "An `InMemoryRing` of a few slots beside a queue: the same moves, the same answers, through many times its slots."
  @spec model(Target.t(), map()) :: {:ok, String.t()}
  def model(_target, _settings) do
    most =
      for slots <- [1, 2, 8], reduce: 0 do
        most -> max(most, moves(InMemoryRing.new(slots), slots, [], [], 0, @model_steps))
      end

    {:ok, "#{3 * @model_steps} moves, up to position #{most}"}
  end

  # `shown`: published and not released, the oldest first; `claimed`: not published yet.
  defp moves(_ring, _slots, _shown, _claimed, next, 0), do: next

  defp moves(ring, slots, shown, claimed, next, left) do
    full? = length(shown) + length(claimed) == slots

    {shown, claimed, next} =
      case :rand.uniform(4) do
        1 ->
          expected = if full?, do: {:error, :full}, else: {:ok, next}
          same!("claim", InMemoryRing.claim(ring, {:item, next}), expected)
          if full?, do: {shown, claimed, next}, else: {shown, claimed ++ [next], next + 1}

        2 ->
          same!("publish", InMemoryRing.publish(ring), length(claimed))
          {shown ++ claimed, [], next}

        3 ->
          at = :rand.uniform(slots) - 1
          position = Enum.at(shown, at)
          expected = if position, do: {:ok, position, {:item, position}}, else: :error
          same!("fetch", InMemoryRing.fetch(ring, at), expected)
          {shown, claimed, next}

        4 ->
          count = :rand.uniform(length(shown) + 1) - 1
          same!("release", InMemoryRing.release(ring, count), :ok)
          {Enum.drop(shown, count), claimed, next}
      end

    same!("free", InMemoryRing.free(ring), slots - length(shown) - length(claimed))
    same!("available", InMemoryRing.available(ring), length(shown))
    moves(ring, slots, shown, claimed, next, left - 1)
  end

  @doc "Payloads of sizes around each edge come back whole, raw and as terms, echoed and computed."
  @spec sizes(Target.t(), map()) :: {:ok, String.t()}
  def sizes(target, _settings) do
    sizes = for edge <- @edges, size <- (edge - 1)..(edge + 1), size >= 0, do: size

    for {size, number} <- Enum.with_index(sizes) do
      bytes = number |> Payload.new(size + Payload.head_bytes()) |> binary_part(0, size)
      same!("echo of #{size} bytes", Ringbridge.call(target.name, :echo, bytes), {:ok, bytes})
      term = {number, bytes, %{size: size}}
      same!("a term of #{size} bytes", Ringbridge.call(target.name, :echo, term), {:ok, term})
      whole = size + Payload.head_bytes()
      computed!(target, number, whole)
    end

    {:ok, "#{length(sizes)} sizes, 0 to #{Enum.max(sizes)} bytes" <> at_the_limit(target)}
  end

  defp at_the_limit(%{kind: :loopback}), do: ""

  defp at_the_limit(target) do
    limit = Target.limit_bytes()

    for size <- [limit - 1, limit] do
      bytes = :binary.copy("x", size)
      same!("#{size} bytes", Ringbridge.call(target.name, :small, bytes), {:ok, bytes})
    end

    for size <- [limit + 1, 2 * limit, 64 * limit] do
      {:error, error} = Ringbridge.call(target.name, :small, :binary.copy("x", size))
      same!("#{size} bytes are", error.reason, {:too_large, limit})
    end

    ", and the limit of #{limit}"
  end

  @doc false
  @spec computed!(Target.t(), non_neg_integer(), pos_integer()) :: :ok
  def computed!(target, number, size) do
    case Ringbridge.call(target.name, :compute, Payload.new(number, size)) do
      {:ok, answer} ->
        with why when is_binary(why) <- Payload.check(answer, number, size),
             do: raise("the answer to #{number}, of #{size} bytes, #{why}")

      {:error, error} ->
        raise "#{number}, of #{size} bytes: #{Exception.message(error)}"
    end
  end

  @doc """
  A queue is filled to its last place: what runs and waits is accepted, one more is `:overloaded`; then all of them are answered, and
  there is room again.
  """
  @spec full(Target.t(), map()) :: {:ok, String.t()}
  def full(target, _settings) do
    [to | _] = Target.dispatchers(target)
    running = Gate.fill(to, Target.slots())
    waiting = Gate.ask(to, Target.slots() + Target.depth() - length(running), :waiting)
    Gate.accepted!(to, Target.slots() + Target.depth())

    # A relay that moves a job on makes room for one more; never for many.
    refused = Gate.ask(to, 4 * Target.depth(), :more)
    {told, held} = refused |> Enum.map(&Gate.answered/1) |> Enum.split_with(& &1)

    for answer <- told, name = reason(answer), name != :overloaded do
      raise "one more than fits is #{inspect(answer)}"
    end

    if target.kind == :loopback and held != [],
      do: raise("#{length(held)} jobs too many were taken")

    if told == [], do: raise("nothing was refused")
    answers = Gate.open(running ++ waiting)

    for answer <- answers,
        not match?({:ok, _}, answer),
        do: raise("accepted, and then #{inspect(answer)}")

    Gate.forget(refused)
    computed!(target, 1, 64)

    {:ok,
     "#{Target.slots() + Target.depth()} accepted, #{length(told)} of #{length(refused)} more refused"}
  end

  defp reason({:error, reason}), do: Error.name(reason)
  defp reason(_answer), do: :ok

  @doc "Many more jobs than any ring has slots, by several callers, each of whom is answered in its own matter."
  @spec wrap(Target.t(), map()) :: {:ok, String.t()}
  def wrap(target, _settings) do
    callers = 4
    each = if target.kind == :loopback, do: 500, else: 300
    seed = :rand.uniform(1_000_000)

    1..callers
    |> Enum.map(fn caller ->
      Task.async(fn ->
        for n <- 1..each,
            do: computed!(target, seed + caller * 1_000_000 + n, 12 + rem(n * 37, 300))
      end)
    end)
    |> Task.await_many(:infinity)

    {:ok, "#{callers * each} jobs through #{Target.depth()} places"}
  end

  @doc """
  A binary of a MiB that is echoed within this VM is one binary still: caller and worker share it. Over a bridge it crosses a socket.
  """
  @spec shared(Target.t(), map()) :: {:ok, String.t()} | {:skipped, String.t()}
  def shared(%{kind: :bridge}, _settings), do: {:skipped, "payloads cross a socket"}

  def shared(target, _settings) do
    # In a process of its own, which holds no other binary.
    Task.await(
      Task.async(fn ->
        size = 1_048_576
        sent = Payload.new(1, size)
        {:ok, answer} = Ringbridge.call(target.name, :echo, sent)
        same!("the echo", answer, sent)
        {:binary, held} = Process.info(self(), :binary)
        ids = for {id, ^size, _references} <- held, uniq: true, do: id
        same!("the number of copies of the payload", length(ids), 1)
        {:ok, "#{size} bytes, sent and answered as one binary"}
      end),
      :infinity
    )
  end

  defp same!(what, found, expected) do
    if found != expected,
      do: raise("#{what}: #{inspect(found, limit: 5)} instead of #{inspect(expected, limit: 5)}")
  end
end
