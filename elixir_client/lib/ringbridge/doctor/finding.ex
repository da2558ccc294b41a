defmodule Ringbridge.Doctor.Finding do
  @moduledoc "One line of the doctor's report: what was looked at, what was found, what that means, and the way out."

  @enforce_keys [:name, :verdict, :found]
  defstruct [:name, :verdict, :found, means: "", mend: ""]

  @typedoc "`:ok`; `:hm`, what calls can do without; `:bad`, without which no call is answered."
  @type verdict :: :ok | :hm | :bad

  @type t :: %__MODULE__{
          name: String.t(),
          verdict: verdict(),
          found: String.t(),
          means: String.t(),
          mend: String.t()
        }

  @doc "All is well with it."
  @spec ok(String.t(), String.t()) :: t()
  def ok(name, found), do: %__MODULE__{name: name, verdict: :ok, found: found}

  @doc "It works, and may surprise."
  @spec hm(String.t(), String.t(), String.t(), String.t()) :: t()
  def hm(name, found, means, mend),
    do: %__MODULE__{name: name, verdict: :hm, found: found, means: means, mend: mend}

  @doc "It does not work, or will not."
  @spec bad(String.t(), String.t(), String.t(), String.t()) :: t()
  def bad(name, found, means, mend),
    do: %__MODULE__{name: name, verdict: :bad, found: found, means: means, mend: mend}
end
