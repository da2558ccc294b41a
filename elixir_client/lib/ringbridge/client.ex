defmodule Ringbridge.Client do
  @moduledoc """
  The calls of `Ringbridge` as a behaviour, for programs whose tests replace the whole module by one of their own.

      @compute Application.compile_env(:my_app, :compute, Ringbridge)
      @compute.call(MyApp.Compute, :scale, image)

  Most tests need no such thing: an instance with `mode: :inline`, or `Ringbridge.Test`, answers the real functions.
  """
  alias Ringbridge.{Error, Request}

  @callback call(Ringbridge.name(), Ringbridge.role(), Ringbridge.payload(), Ringbridge.options()) ::
              Ringbridge.answer()
  @callback call!(
              Ringbridge.name(),
              Ringbridge.role(),
              Ringbridge.payload(),
              Ringbridge.options()
            ) ::
              Ringbridge.result() | {Ringbridge.result(), Ringbridge.detail()}
  @callback cast(Ringbridge.name(), Ringbridge.role(), Ringbridge.payload(), Ringbridge.options()) ::
              :ok | {:error, Error.t()}
  @callback call_many(
              Ringbridge.name(),
              Ringbridge.role(),
              [Ringbridge.payload()],
              Ringbridge.options()
            ) :: {:ok, [Ringbridge.answer()]} | {:error, Error.t()}
  @callback pipeline(
              Ringbridge.name(),
              [Ringbridge.stage(), ...],
              Ringbridge.payload(),
              Ringbridge.options()
            ) :: Ringbridge.answer()
  @callback async(
              Ringbridge.name(),
              Ringbridge.role(),
              Ringbridge.payload(),
              Ringbridge.options()
            ) ::
              Request.t()
  @callback await(Request.t(), timeout()) :: Ringbridge.answer()
  @callback yield(Request.t(), timeout()) :: Ringbridge.answer() | nil
  @callback shutdown(Request.t()) :: Ringbridge.answer() | nil
  @callback check(Request.t(), message :: term()) :: Ringbridge.answer() | :other
  @callback stream(Ringbridge.name(), Ringbridge.role(), Ringbridge.payload(), keyword() | map()) ::
              Enumerable.t()
end
