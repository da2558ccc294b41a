defmodule Ringbridge.CookieTest do
  @moduledoc "A cookie that cannot be had is an error in words, and none is shown to whoever looks."
  use ExUnit.Case, async: true

  alias Ringbridge.Cookie

  @secret "GEHEIM"

  test "a function that raises, throws or exits is an error, without what it said" do
    for fun <- [
          fn -> raise @secret end,
          fn -> throw(@secret) end,
          fn -> exit(@secret) end,
          fn -> :erlang.error({:badmatch, @secret}) end,
          fn -> {:ok, @secret} end
        ] do
      assert {:error, why} = Cookie.source(cookie: fun).()
      assert why =~ "cookie"
      refute why =~ @secret
    end

    assert Cookie.source(cookie: fn -> @secret end).() == {:ok, :GEHEIM}
  end

  test "a file that is no text is an error" do
    path = Path.join(System.tmp_dir!(), "ringbridge-cookie-#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm(path) end)
    File.write!(path, <<"A", 255, 254, "\n">>)
    File.chmod!(path, 0o400)
    assert {:error, why} = Cookie.source(cookie_file: path).()
    assert why =~ path
  end

  test "nothing shows one, whatever kind of options it stands in, and whatever it is" do
    charlist = String.to_charlist(@secret)

    for cookie <- [@secret, charlist, :GEHEIM, {:cookie, @secret}],
        options <- [
          [name: A, cookie: cookie],
          %{name: A, cookie: cookie},
          %{"cookie" => cookie},
          [:name, {:cookie, cookie}]
        ] do
      shown = inspect(Ringbridge.child_spec(options), charlists: :as_lists)
      refute shown =~ @secret
      refute shown =~ inspect(charlist, charlists: :as_lists)

      error = assert_raise ArgumentError, fn -> Ringbridge.start_link(options) end
      refute error.message =~ @secret
      refute error.message =~ inspect(charlist, charlists: :as_lists)
    end
  end
end
