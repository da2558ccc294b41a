defmodule Ringbridge.Trace do
  @moduledoc """
  The W3C traceparent of a call, which its worker is handed.

  In this order: the call's option `:trace`; what `put/1` has set for this process; OpenTelemetry's current context, when
  its API is loaded and has a propagator that writes `traceparent`. One that is malformed and was not given by the call
  itself is left out: no call fails for its trace.
  """
  @compile {:no_warn_undefined, :otel_propagator_text_map}

  @key {__MODULE__, :traceparent}

  @doc """
  Sets the traceparent of what this process will call; `nil` takes it back. Returns the one before.

      iex> Ringbridge.Trace.put("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
      nil
      iex> Ringbridge.Trace.current()
      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
  """
  @spec put(binary() | nil) :: binary() | nil
  def put(nil), do: Process.delete(@key)
  def put(traceparent) when is_binary(traceparent), do: Process.put(@key, traceparent)

  @doc "The traceparent of this process, or `nil`."
  @spec current() :: binary() | nil
  def current do
    traceparent = Process.get(@key) || from_opentelemetry()
    if traceparent?(traceparent), do: traceparent
  end

  # Version, 16 bytes of trace, 8 of span, flags (W3C Trace Context, 3.2).
  defp traceparent?(
         <<version::binary-2, "-", trace::binary-32, "-", span::binary-16, "-", flags::binary-2>>
       ) do
    version != "ff" and Enum.all?([version, trace, span, flags], &hex?/1)
  end

  defp traceparent?(_other), do: false

  defp hex?(text), do: match?({:ok, _}, Base.decode16(text, case: :lower))

  # function_exported? looks only at what is loaded: a look-up in a table, on every call.
  defp from_opentelemetry do
    if function_exported?(:otel_propagator_text_map, :inject, 1) do
      headers = :otel_propagator_text_map.inject([])
      Enum.find_value(headers, fn {key, value} -> key == "traceparent" && value end)
    end
  rescue
    # A propagator of the application's, and any of its headers: no call fails for its trace.
    _error -> nil
  catch
    _kind, _value -> nil
  end
end
