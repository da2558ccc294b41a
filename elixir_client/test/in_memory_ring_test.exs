defmodule Ringbridge.InMemoryRingTest do
  @moduledoc "The ring against a queue, step by step at random, and by two processes at once."
  use ExUnit.Case, async: true
  doctest Ringbridge.InMemoryRing

  alias Ringbridge.InMemoryRing, as: Ring

  test "a ring's size is a power of two" do
    for slots <- [0, -1, 3, 6, :many], do: assert_raise(ArgumentError, fn -> Ring.new(slots) end)
  end

  # The model: what is claimed and not published, and what is published and not released, oldest first.
  test "it does what a bounded queue does, whatever the steps" do
    for seed <- 1..200 do
      :rand.seed(:exsss, {seed, 7, 7})
      slots = Enum.random([1, 2, 4, 8])
      ring = Ring.new(slots)
      model = Enum.reduce(1..200, {[], [], 0}, &step(ring, slots, &1, &2))
      assert {_, _, released} = model
      # Positions have gone round the ring: else nothing was shown.
      assert released > 2 * slots, "seed #{seed}"
    end
  end

  defp step(ring, slots, n, {claimed, published, released}) do
    count = length(claimed) + length(published)
    position = released + count
    assert Ring.free(ring) == slots - count
    assert Ring.available(ring) == length(published)

    case Enum.random([:claim, :claim, :publish, :fetch, :release]) do
      :claim when count == slots ->
        assert {:error, :full} = Ring.claim(ring, n)
        {claimed, published, released}

      :claim ->
        assert {:ok, ^position} = Ring.claim(ring, n)
        {claimed ++ [n], published, released}

      :publish ->
        assert Ring.publish(ring) == length(claimed)
        {[], published ++ claimed, released}

      :fetch ->
        for {item, i} <- Enum.with_index(published),
            do: assert({:ok, released + i, item} == Ring.fetch(ring, i))

        assert :error = Ring.fetch(ring, length(published))
        {claimed, published, released}

      :release ->
        many = length(published) + 1
        assert_raise ArgumentError, fn -> Ring.release(ring, many) end
        k = :rand.uniform(many) - 1
        assert :ok = Ring.release(ring, k)
        {claimed, Enum.drop(published, k), released + k}
    end
  end

  test "between two processes nothing is lost, doubled or out of order" do
    ring = Ring.new(8)
    count = 20_000
    producer = Task.async(fn -> produce(ring, 1, count) end)
    assert consume(ring, {0, []}) == Enum.to_list(1..count)
    Task.await(producer, 60_000)
    assert Ring.available(ring) == 0
  end

  defp produce(ring, n, count) when n > count, do: put(ring, :end)

  defp produce(ring, n, count) do
    put(ring, n)
    produce(ring, n + 1, count)
  end

  # Published now and then, so that the consumer sees batches, and always before a wait for room.
  defp put(ring, item) do
    case Ring.claim(ring, item) do
      {:ok, position} ->
        if item == :end or rem(position, 3) == 0, do: Ring.publish(ring)

      {:error, :full} ->
        Ring.publish(ring)
        :erlang.yield()
        put(ring, item)
    end
  end

  defp consume(ring, {count, items} = taken) do
    case Ring.fetch(ring, 0) do
      :error ->
        :erlang.yield()
        consume(ring, taken)

      {:ok, position, item} ->
        assert position == count
        Ring.release(ring, 1)
        if item == :end, do: Enum.reverse(items), else: consume(ring, {count + 1, [item | items]})
    end
  end
end
