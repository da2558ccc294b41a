defmodule Ringbridge.Reach.Handshake do
  @moduledoc """
  The distribution's handshake as the side that dials, up to the proof that both know one cookie.

  Messages (OTP's "Distribution Protocol", "Distribution Handshake"; integers big-endian, each behind a length of two bytes, which
  `packet: 2` of the socket puts and takes):

      we    "N" flags:64 creation:32 length:16 name
      they  "s" status                                  "ok", "not_allowed", "alive", ...
      they  "N" flags:64 challenge:32 creation:32 length:16 name
      we    "r" challenge:32 digest:16/binary
      they  "a" digest:16/binary                        md5(cookie, challenge in decimal)

  Who gives a wrong digest is closed upon, without a word.
  """
  import Bitwise

  # What OTP 25 asks of everybody (kernel's dist.hrl): HANDSHAKE_23, MANDATORY_25_DIGEST, V4_NC and, for bridges that
  # look at each, the bits that the digest stands for.
  @flags [2, 4, 7, 8, 9, 10, 11, 16, 17, 18, 24, 25, 26, 34]
         |> Enum.map(&(1 <<< &1))
         |> Enum.sum()
  @published 1

  @type outcome :: {:status, String.t()} | :cookie | {:closed, String.t()}

  @doc "Goes through it on a connected socket (`packet: 2`, passive); the peer's flags."
  @spec shake(:gen_tcp.socket(), node(), atom(), timeout()) ::
          {:ok, non_neg_integer()} | outcome()
  def shake(socket, own_name, cookie, timeout) do
    cookie = Atom.to_string(cookie)
    mine = :rand.uniform(0xFFFFFFFF)

    with :ok <- :gen_tcp.send(socket, name(own_name)),
         {:status, {:ok, "s" <> status}} when status in ["ok", "ok_simultaneous"] <-
           {:status, :gen_tcp.recv(socket, 0, timeout)},
         {:ok, challenge} <- :gen_tcp.recv(socket, 0, timeout),
         {:ok, flags, theirs} <- challenge(challenge),
         :ok <- :gen_tcp.send(socket, reply(mine, theirs, cookie)),
         {:ack, {:ok, "a" <> digest}} <- {:ack, :gen_tcp.recv(socket, 0, timeout)} do
      if digest == digest(cookie, mine), do: {:ok, flags}, else: :cookie
    else
      {:status, {:ok, "s" <> status}} -> {:status, status}
      {:ack, _closed} -> :cookie
      _closed_or_odd -> {:closed, "during the handshake"}
    end
  end

  @doc "Whether a node with these flags shows itself to the cluster; one that does not is hidden."
  @spec published?(non_neg_integer()) :: boolean()
  def published?(flags), do: band(flags, @published) != 0

  @doc false
  @spec name(node()) :: binary()
  def name(node) do
    name = Atom.to_string(node)
    <<"N", @flags::64, creation()::32, byte_size(name)::16, name::binary>>
  end

  # 0 is reserved; it is that of a VM which is no node.
  defp creation, do: max(:erlang.system_info(:creation), 1)

  @doc false
  @spec challenge(binary()) :: {:ok, non_neg_integer(), non_neg_integer()} | :error
  def challenge(<<"N", flags::64, challenge::32, _creation::32, n::16, _name::binary-size(n)>>),
    do: {:ok, flags, challenge}

  def challenge(_other), do: :error

  @doc false
  @spec reply(non_neg_integer(), non_neg_integer(), String.t()) :: binary()
  def reply(mine, theirs, cookie), do: <<"r", mine::32, digest(cookie, theirs)::binary>>

  @doc false
  @spec digest(String.t(), non_neg_integer()) :: <<_::128>>
  def digest(cookie, challenge), do: :erlang.md5([cookie, Integer.to_string(challenge)])
end
