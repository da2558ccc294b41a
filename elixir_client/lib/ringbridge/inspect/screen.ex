defmodule Ringbridge.Inspect.Screen do
  @moduledoc """
  Draws one page over the last one, so that nothing flickers: each line is written over the old one and only what stands
  behind it is erased, and all of it leaves in one write.

  The screen is cleared once, at the first page. Cursor and screen are the ordinary ones: there is nothing to put back, however
  the program ends (a Mix task hears of no SIGINT). Sequences: ECMA-48 CUP, EL, ED.
  """
  alias Ringbridge.Inspect.Table

  @typedoc "Columns and rows."
  @type size :: {pos_integer(), pos_integer()}

  @clear "\e[2J"
  @home "\e[H"
  @erase_line "\e[K"
  @erase_below "\e[J"

  @doc "What to write to the terminal; `first?` clears what was there before."
  @spec frame([Table.line()], size(), first? :: boolean(), styled? :: boolean()) :: iodata()
  def frame(lines, {columns, rows}, first?, styled?) do
    drawn =
      lines
      |> fitting(rows)
      |> Enum.map(&[Table.render(Table.cut(&1, columns), styled?), @erase_line])
      |> Enum.intersperse("\r\n")

    [if(first?, do: @clear, else: []), @home, drawn, @erase_below]
  end

  # A line more than there are rows would roll the page away.
  defp fitting(lines, rows) do
    case length(lines) - rows do
      over when over > 0 ->
        Enum.take(lines, rows - 1) ++
          [[{:yellow, "#{over + 1} lines more: a larger terminal, --role or --once shows them"}]]

      _fits ->
        lines
    end
  end

  @doc """
  The terminal's size, asked anew each time, for it may have been changed: the VM's own knowledge, else that of `stty`, else 80 x 24.
  """
  @spec size() :: size()
  def size do
    with {:error, _} <- known(),
         :error <- stty() do
      {80, 24}
    else
      {columns, rows} -> {columns, rows}
    end
  end

  # Not before OTP 26 without a shell.
  defp known do
    with {:ok, columns} <- :io.columns(),
         {:ok, rows} <- :io.rows() do
      {columns, rows}
    end
  end

  defp stty do
    with {text, 0} <- System.cmd("sh", ["-c", "stty size </dev/tty"], stderr_to_stdout: true),
         [rows, columns] <- String.split(text),
         {rows, ""} when rows > 0 <- Integer.parse(rows),
         {columns, ""} when columns > 0 <- Integer.parse(columns) do
      {columns, rows}
    else
      _no_terminal -> :error
    end
  rescue
    # No sh.
    _error in ErlangError -> :error
  end
end
