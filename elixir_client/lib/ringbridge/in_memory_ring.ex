defmodule Ringbridge.InMemoryRing do
  @moduledoc """
  A bounded ring with one producer and one consumer, with the positions of the rings that native workers have
  (`csrc/include/ringbridge/ring.h`), on `:atomics` and ETS: no native part, any term in a slot.

  Positions run freely and are masked only at use: `tail` counts slots published, `head` slots released. What is
  claimed is written and not seen yet; publishing shows all of it with one store; a slot is used again only when its
  consumer has released it. A ring is full at `slots` items that are claimed and not released, never before.

      iex> ring = Ringbridge.InMemoryRing.new(2)
      iex> {:ok, 0} = Ringbridge.InMemoryRing.claim(ring, :a)
      iex> {:ok, 1} = Ringbridge.InMemoryRing.claim(ring, :b)
      iex> Ringbridge.InMemoryRing.claim(ring, :c)
      {:error, :full}
      iex> Ringbridge.InMemoryRing.available(ring)
      0
      iex> Ringbridge.InMemoryRing.publish(ring)
      2
      iex> Ringbridge.InMemoryRing.fetch(ring, 0)
      {:ok, 0, :a}
      iex> Ringbridge.InMemoryRing.release(ring, 1)
      :ok
      iex> Ringbridge.InMemoryRing.claim(ring, :c)
      {:ok, 2}

  The ring lives as long as the process that made it: its table is that process's.
  """
  import Bitwise

  @enforce_keys [:slots, :positions, :items]
  defstruct [:slots, :positions, :items]

  @opaque t :: %__MODULE__{
            slots: pos_integer(),
            positions: :atomics.atomics_ref(),
            items: :ets.table()
          }

  # Words of `positions`. `claimed` is the producer's alone, as its truth is private in the native ring.
  @tail 1
  @head 2
  @claimed 3

  @doc "A ring of `slots` slots, a power of two from 1 on. Raises ArgumentError."
  @spec new(pos_integer()) :: t()
  def new(slots) when is_integer(slots) and slots > 0 and (slots &&& slots - 1) == 0 do
    items = :ets.new(__MODULE__, [:set, :public, read_concurrency: true])
    %__MODULE__{slots: slots, positions: :atomics.new(3, signed: false), items: items}
  end

  def new(slots), do: raise(ArgumentError, "slots is a power of two, not #{inspect(slots)}")

  @doc "How many more can be claimed. For the producer."
  @spec free(t()) :: non_neg_integer()
  def free(%__MODULE__{} = ring), do: ring.slots - (get(ring, @claimed) - get(ring, @head))

  @doc "Writes an item into the next slot, not published yet; its position. For the producer."
  @spec claim(t(), term()) :: {:ok, non_neg_integer()} | {:error, :full}
  def claim(%__MODULE__{} = ring, item) do
    if free(ring) == 0 do
      {:error, :full}
    else
      position = get(ring, @claimed)
      true = :ets.insert(ring.items, {index(ring, position), item})
      :atomics.put(ring.positions, @claimed, position + 1)
      {:ok, position}
    end
  end

  @doc "Shows all that is claimed to the consumer; how many slots that were. For the producer."
  @spec publish(t()) :: non_neg_integer()
  def publish(%__MODULE__{} = ring) do
    claimed = get(ring, @claimed)
    count = claimed - get(ring, @tail)

    # R0 of ring.h: after the items. Operations on atomics are seq_cst, and so are those on a table towards them.
    :atomics.put(ring.positions, @tail, claimed)
    count
  end

  @doc "How many items are published and not released. For the consumer."
  @spec available(t()) :: non_neg_integer()
  def available(%__MODULE__{} = ring), do: get(ring, @tail) - get(ring, @head)

  @doc "The `n`-th of them from the oldest on, with its position, and left where it is. For the consumer."
  @spec fetch(t(), non_neg_integer()) :: {:ok, non_neg_integer(), term()} | :error
  def fetch(%__MODULE__{} = ring, n) when is_integer(n) and n >= 0 do
    if n < available(ring) do
      position = get(ring, @head) + n
      [{_index, item}] = :ets.lookup(ring.items, index(ring, position))
      {:ok, position, item}
    else
      :error
    end
  end

  @doc """
  Gives the oldest `count` slots back to the producer; their items are forgotten. For the consumer. Raises
  ArgumentError when so many are not there.
  """
  @spec release(t(), non_neg_integer()) :: :ok
  def release(%__MODULE__{} = ring, count) when is_integer(count) and count >= 0 do
    if count > available(ring),
      do: raise(ArgumentError, "#{count} to release, #{available(ring)} there")

    head = get(ring, @head)

    for position <- head..(head + count - 1)//1,
        do: :ets.delete(ring.items, index(ring, position))

    # R2: after the items are gone, so that a slot that is free is empty.
    :atomics.put(ring.positions, @head, head + count)
  end

  defp get(ring, word), do: :atomics.get(ring.positions, word)
  defp index(ring, position), do: position &&& ring.slots - 1
end
