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

  # Of jobs that are structs (`Ringbridge.Job`), and of a role and its payload without options. Optional: who stands in for a
  # program that calls roles needs none of them.
  @typep found :: {:ok, [Ringbridge.answer()]} | {:error, Error.t()}
  @typep whole :: Ringbridge.result() | {Ringbridge.result(), Ringbridge.detail()}

  @callback call(Ringbridge.name(), Ringbridge.job()) :: Ringbridge.answer()
  @callback call(Ringbridge.name(), Ringbridge.job() | Ringbridge.role(), term()) ::
              Ringbridge.answer()
  @callback call!(Ringbridge.name(), Ringbridge.job()) :: whole()
  @callback call!(Ringbridge.name(), Ringbridge.job() | Ringbridge.role(), term()) :: whole()
  @callback cast(Ringbridge.name(), Ringbridge.job()) :: :ok | {:error, Error.t()}
  @callback cast(Ringbridge.name(), Ringbridge.job() | Ringbridge.role(), term()) ::
              :ok | {:error, Error.t()}
  @callback call_many(Ringbridge.name(), [Ringbridge.job()]) :: found()
  @callback call_many(Ringbridge.name(), [Ringbridge.job()] | Ringbridge.role(), term()) ::
              found()
  @callback async(Ringbridge.name(), Ringbridge.job()) :: Request.t()
  @callback async(Ringbridge.name(), Ringbridge.job() | Ringbridge.role(), term()) :: Request.t()
  @callback stream(Ringbridge.name(), Ringbridge.job()) :: Enumerable.t()
  @callback stream(Ringbridge.name(), Ringbridge.job() | Ringbridge.role(), term()) ::
              Enumerable.t()

  @optional_callbacks call: 2, call: 3, call!: 2, call!: 3, cast: 2, cast: 3, call_many: 2
  @optional_callbacks call_many: 3, async: 2, async: 3, stream: 2, stream: 3
end
