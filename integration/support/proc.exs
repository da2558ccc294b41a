defmodule Ringbridge.Proc do
  @moduledoc "What /proc tells of the bridge's processes and their memory."

  @doc "Children, grandchildren and so on; of all threads, for shepherds are forked by a thread of their own."
  @spec descendants(pos_integer()) :: [pos_integer()]
  defdelegate descendants(pid), to: Ringbridge.Case.Bridge

  @doc "Whether it runs. A zombie does not: it holds no memory and no descriptor."
  @spec alive?(pos_integer()) :: boolean()
  def alive?(pid) do
    case File.read("/proc/#{pid}/stat") do
      {:ok, stat} -> not (stat |> String.split(") ") |> List.last() |> String.starts_with?("Z"))
      {:error, _} -> false
    end
  end

  @doc "Whether no thread of it runs since a stop signal, or it is gone."
  @spec stopped?(pos_integer()) :: boolean()
  def stopped?(pid) do
    Enum.all?(Path.wildcard("/proc/#{pid}/task/*/stat"), fn file ->
      case File.read(file) do
        {:ok, stat} ->
          stat |> String.split(") ") |> List.last() |> String.starts_with?(["T", "Z"])

        {:error, _} ->
          true
      end
    end)
  end

  @spec parent(pos_integer()) :: pos_integer()
  def parent(pid) do
    [_, ppid] = Regex.run(~r/PPid:\s+(\d+)/, File.read!("/proc/#{pid}/status"))
    String.to_integer(ppid)
  end

  @doc "The command line, or nothing when there is no such process."
  @spec cmdline(pos_integer() | String.t()) :: String.t()
  def cmdline(pid), do: read(pid, "cmdline")

  @spec environ(pos_integer()) :: String.t()
  def environ(pid), do: read(pid, "environ")

  @spec with_argument(String.t()) :: [String.t()]
  def with_argument(text) do
    for "/proc/" <> pid <- Path.wildcard("/proc/[0-9]*"), cmdline(pid) =~ text, do: pid
  end

  @doc "Inodes of the anonymous memory that these processes map."
  @spec memfds([pos_integer() | String.t()]) :: [String.t()]
  def memfds(pids) do
    for pid <- pids,
        [_, inode] <- Regex.scan(~r/ (\d+)\s+\/memfd:/, read(pid, "maps")),
        uniq: true,
        do: inode
  end

  @doc "Those of the inodes that any process of this machine still maps."
  @spec still_mapped([String.t()]) :: [String.t()]
  def still_mapped(inodes) do
    pids = for "/proc/" <> pid <- Path.wildcard("/proc/[0-9]*"), do: pid
    for inode <- memfds(pids), inode in inodes, do: inode
  end

  @spec descriptors(pos_integer()) :: non_neg_integer()
  def descriptors(pid), do: length(File.ls!("/proc/#{pid}/fd"))

  @spec resident_bytes(pos_integer()) :: non_neg_integer()
  def resident_bytes(pid) do
    [_, kib] = Regex.run(~r/VmRSS:\s+(\d+) kB/, File.read!("/proc/#{pid}/status"))
    String.to_integer(kib) * 1_024
  end

  defp read(pid, file) do
    case File.read("/proc/#{pid}/#{file}") do
      {:ok, text} -> text
      {:error, _} -> ""
    end
  end
end
