%% term_echo: what a BEAM makes of our bytes, over stdin and stdout in frames of {packet, 4}.
%%
%% <<$e, Bytes>>        binary_to_term, term_to_binary: <<$o, Bytes>>; <<$x>> when it refuses
%% <<$=, A/size, B>>    <<$o, 1>> if the two terms are =:=, else <<$o, 0>>
%% <<$r, Seed:32>>      a term at random, the same for the same seed: <<$o, Bytes>>
-module(term_echo).
-export([main/0]).

main() ->
    ok = io:setopts(standard_io, [binary, {encoding, latin1}]),
    Port = open_port({fd, 0, 1}, [binary, {packet, 4}, eof]),
    loop(Port).

loop(Port) ->
    receive
        {Port, {data, Request}} ->
            port_command(Port, answer(Request)),
            loop(Port);
        {Port, eof} ->
            halt(0)
    end.

answer(<<$e, Bytes/binary>>) ->
    try
        [$o, to_bytes(binary_to_term(Bytes))]
    catch
        error:badarg -> [$x]
    end;
answer(<<$=, Size:32, Left:Size/binary, Right/binary>>) ->
    case binary_to_term(Left) =:= binary_to_term(Right) of
        true -> [$o, 1];
        false -> [$o, 0]
    end;
answer(<<$r, Seed:32>>) ->
    rand:seed(exsss, Seed),
    [$o, to_bytes(term(5))].

to_bytes(Term) ->
    term_to_binary(Term, [{minor_version, 2}]).

term(0) -> leaf(uniform(13));
term(Depth) ->
    case uniform(12) of
        1 -> list_to_tuple(terms(uniform(6) - 1, Depth));
        2 -> terms(uniform(6) - 1, Depth);
        3 -> terms(uniform(4), Depth) ++ leaf(uniform(9));
        4 -> map(Depth);
        5 -> map(Depth);
        6 -> terms(uniform(8), Depth);
        7 -> list_to_tuple(terms(uniform(4), Depth));
        8 -> a_fun(term(Depth - 1), term(Depth - 1));
        _ -> term(0)
    end.

terms(N, Depth) -> [term(Depth - 1) || _ <- lists:seq(1, N)].

map(Depth) ->
    maps:from_list([{term(Depth - 1), term(Depth - 1)} || _ <- lists:seq(1, uniform(5) - 1)]).

leaf(1) -> uniform(300) - 20;
leaf(2) -> (uniform(3) - 2) * (1 bsl uniform(70)) + uniform(3) - 2;
leaf(3) -> (uniform(3) - 2) * (uniform(1 bsl 62) bsl uniform(3000));
leaf(4) -> rand:normal() * math:pow(10, uniform(300) - 150);
leaf(5) -> element(uniform(6), {0.0, 1.0, -1.0, 1.0e300, 2.0, 255.0});
leaf(6) -> element(uniform(8), {true, false, nil, undefined, ok, error, '', 'with blank'});
leaf(7) -> list_to_atom([uniform(16#d7ff) || _ <- lists:seq(1, uniform(40))]);
leaf(8) -> rand:bytes(uniform(40) - 1);
leaf(9) -> <<(rand:uniform(1 bsl 20)):(uniform(20))>>;
leaf(10) -> [uniform(256) - 1 || _ <- lists:seq(1, uniform(30))];
leaf(11) -> element(uniform(3), {self(), make_ref(), hd(erlang:ports())});
leaf(12) -> element(uniform(3), {fun lists:map/2, fun nil:true/0, fun 'Elixir.Enum':map/255});
leaf(13) -> [].

a_fun(A, B) ->
    case uniform(3) of
        1 -> fun() -> ok end;
        2 -> fun(X) -> {X, A} end;
        3 -> fun(X, Y) -> {X, Y, A, B} end
    end.

uniform(N) -> rand:uniform(N).
