defmodule Ringbridge.Server.Output do
  @moduledoc """
  What the bridge says, from bytes to what a Logger is told.

  The bridge logs JSON lines (`ringbridge serve --log-format json`); what is none of those is the interpreter's, an error that ends
  the command (`ringbridge: ...`), or a worker's way round: it is passed on as it is. Pure.
  """

  alias Ringbridge.Server.Json

  # A line that does not end: nobody waits for it for ever.
  @line_max 65_536

  # The last words of a bridge that failed, for whoever asks why.
  @said_max 10

  @levels %{
    "debug" => :debug,
    "info" => :info,
    "warning" => :warning,
    "error" => :error,
    "critical" => :critical
  }

  # What stands in the Logger's line anyway, or is told by its level.
  @told ["event", "level", "timestamp"]

  defstruct part: "", said: []

  @type t :: %__MODULE__{part: binary(), said: [String.t()]}
  @type line :: {Logger.level(), String.t()}

  @doc "The lines that are whole with these bytes, oldest first."
  @spec feed(t(), binary()) :: {[line()], t()}
  def feed(%__MODULE__{} = output, bytes) do
    {lines, [part]} = (output.part <> bytes) |> String.split("\n") |> Enum.split(-1)

    {lines, part} = if byte_size(part) > @line_max, do: {lines ++ [part], ""}, else: {lines, part}

    told = for line <- lines, line != "", do: told(line)
    {told, remember(%{output | part: part}, told)}
  end

  @doc "So many bytes are missing here: what was begun before them has no end, what comes next may have no beginning."
  @spec lost(t(), non_neg_integer()) :: {[line()], t()}
  def lost(%__MODULE__{} = output, bytes) do
    line = {:warning, "#{bytes} bytes of the bridge's log are missing here: this VM did not read"}
    {[line], %{output | part: ""}}
  end

  @doc "What was said without an end of its line."
  @spec close(t()) :: {[line()], t()}
  def close(%__MODULE__{part: ""} = output), do: {[], output}

  def close(%__MODULE__{part: part} = output) do
    told = [told(part)]
    {told, remember(%{output | part: ""}, told)}
  end

  @doc "The last errors and plain words, oldest first."
  @spec said(t()) :: String.t()
  def said(%__MODULE__{said: said}), do: said |> Enum.reverse() |> Enum.join("\n")

  defp remember(output, told) do
    bad = for {level, text} <- told, level in [:error, :critical], do: text
    %{output | said: Enum.take(Enum.reverse(bad) ++ output.said, @said_max)}
  end

  defp told(line) do
    case Json.decode(line) do
      {:ok, %{"event" => event} = fields} when is_binary(event) ->
        {Map.get(@levels, fields["level"], :info), safe(event) <> fields(Map.drop(fields, @told))}

      _other ->
        {:error, safe(line)}
    end
  end

  # A log may be read on a terminal, and workers have a part in what is said: no control character reaches it but the tabulator.
  defp safe(text) do
    if String.valid?(text),
      do: Regex.replace(~r/[^\P{Cc}\t]/u, text, fn <<c::utf8>> -> "\\x{#{hex(c)}}" end),
      else: inspect(text)
  end

  defp hex(code), do: Integer.to_string(code, 16)

  defp fields(fields) do
    for {key, value} <- Enum.sort(fields), into: "", do: " #{safe(key)}=#{shown(value)}"
  end

  defp shown(value) when is_binary(value),
    do:
      if(value =~ ~r/\A[^\s"=\p{Cc}]+\z/u,
        do: value,
        else: inspect(value, printable_limit: :infinity)
      )

  defp shown(value) when is_number(value) or is_boolean(value) or value == nil, do: "#{value}"
  defp shown(value), do: inspect(value, limit: :infinity, printable_limit: :infinity)
end
