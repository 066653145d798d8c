%%% @doc Messages on disk that wait for the archive: a queue that survives
%%% restarts, for one process.
%%%
%%% The directory has segments, `1.seg', `2.seg' and so on, to which records are
%%% appended, and `position', which says up to where they were archived.
%%%
%%%   segment:  "mamlog1\n", records
%%%   record:   length of the entry (32 bits), CRC-32 of it (32 bits), entry
%%%   entry:    a term in the external format
%%%   position: number of the segment, offset of the first entry that is not
%%%             archived, in decimal, and a newline
%%%
%%% append/2 returns after the entries, and the name of a new segment, were synced.
%%% The position is not: it may be behind, but never ahead, of what was archived,
%%% and what is then sent again is recognised by its key. A segment ends at its
%%% first record that is incomplete or damaged; after a crash that is the torn end
%%% of the last one. Segments of a former run are never appended to.
-module(mod_mamlog_spool).

-export([open/2, close/1, append/2, append_always/2, peek/1, take/1, ack/2,
         rewind/1, count/1, bytes/1]).

-export_type([spool/0, entry/0]).

-include("logger.hrl").

-define(MAGIC, "mamlog1\n").
-define(SEGMENT, 8388608).
-define(READ, 262144).
-define(SAVE_EVERY, 1024).

-record(spool, {
    dir :: file:filename_all(),
    max :: pos_integer(),           % bytes that append/2 fills
    ends = #{} :: #{pos_integer() => pos_integer()}, % where the records of a segment end
    first :: pos_integer(),         % oldest segment
    next :: pos_integer(),          % number of the next one to be made
    out = none :: none | {pos_integer(), file:fd()}, % being written
    in = none :: none | {pos_integer(), file:fd()},  % being read
    at :: {pos_integer(), pos_integer()},   % of the next entry to be read
    buf = <<>> :: binary(),         % from there on
    head = none :: none | {entry(), pos_integer()},  % read, not yet taken
    taken = queue:new() :: queue:queue({{pos_integer(), pos_integer()}, pos_integer()}),
    acked :: {pos_integer(), pos_integer()},
    count = 0 :: non_neg_integer(),
    bytes = 0 :: non_neg_integer(),
    unsaved = 0 :: non_neg_integer()
}).

-opaque spool() :: #spool{}.
-type entry() :: term().

%% @doc Opens the spool, made if it isn't there. Max bounds the bytes of entries.
-spec open(file:filename_all(), pos_integer()) -> {ok, spool()} | {error, term()}.
open(Dir, Max) ->
    case filelib:ensure_dir(filename:join(Dir, "x")) of
        ok ->
            case file:list_dir(Dir) of
                {ok, Names} -> {ok, load(Dir, Max, segments(Names))};
                Error -> Error
            end;
        Error ->
            Error
    end.

segments(Names) ->
    lists:sort([N || Name <- Names, {N, ".seg"} <- [string:to_integer(Name)], is_integer(N)]).

load(Dir, Max, []) ->
    _ = file:delete(position_file(Dir)),
    empty(#spool{dir = Dir, max = Max, first = 1, next = 1, at = {1, 0}, acked = {1, 0}});
load(Dir, Max, Numbers) ->
    Start = position(Dir, hd(Numbers), lists:last(Numbers)),
    S0 = #spool{dir = Dir, max = Max, first = hd(Numbers), next = lists:last(Numbers) + 1,
                at = Start, acked = Start},
    S = lists:foldl(fun scan/2, S0, Numbers),
    case S#spool.count of
        0 -> reset(S);
        _ -> S
    end.

%% One that can't be of these segments is not believed.
position(Dir, First, Last) ->
    try
        {ok, Text} = file:read_file(position_file(Dir)),
        [A, B, <<>>] = binary:split(Text, [<<" ">>, <<"\n">>], [global]),
        N = binary_to_integer(A),
        true = First =< N andalso N =< Last,
        {N, max(binary_to_integer(B), length(?MAGIC))}
    catch _:_ ->
        {First, length(?MAGIC)}
    end.

position_file(Dir) ->
    filename:join(Dir, "position").

segment_file(#spool{dir = Dir}, N) ->
    filename:join(Dir, integer_to_list(N) ++ ".seg").

%% Finds where a segment ends, and counts what of it is still to be archived.
scan(N, #spool{acked = {Seg, _}} = S) when N < Seg ->
    _ = file:delete(segment_file(S, N)),
    S#spool{first = N + 1};
scan(N, #spool{acked = {Seg, Off}} = S) ->
    Name = segment_file(S, N),
    case file:open(Name, [read, raw, binary]) of
        {ok, Fd} ->
            Begin = length(?MAGIC),
            {End, Count, Bytes} =
                case file:pread(Fd, 0, Begin) of
                    {ok, <<?MAGIC>>} -> scan_records(Fd, Begin, <<>>, {Seg, Off}, N, 0, 0);
                    _ -> {Begin, 0, 0}
                end,
            Size = filelib:file_size(Name),
            _ = file:close(Fd),
            Size > End andalso
                ?WARNING_MSG("The spool segment ~ts has ~B bytes at its end that are no "
                             "complete record", [Name, Size - End]),
            S#spool{ends = (S#spool.ends)#{N => End}, count = S#spool.count + Count,
                    bytes = S#spool.bytes + Bytes};
        {error, Why} ->
            ?ERROR_MSG("Can't read the spool segment ~ts: ~ts", [Name, file:format_error(Why)]),
            S#spool{ends = (S#spool.ends)#{N => length(?MAGIC)}}
    end.

scan_records(Fd, Pos, Buf, From, N, Count, Bytes) ->
    case record(Buf) of
        {ok, _, Size, Rest} when {N, Pos} >= From ->
            scan_records(Fd, Pos + Size, Rest, From, N, Count + 1, Bytes + Size);
        {ok, _, Size, Rest} ->
            scan_records(Fd, Pos + Size, Rest, From, N, Count, Bytes);
        {more, Need} ->
            case file:pread(Fd, Pos + byte_size(Buf), max(?READ, Need)) of
                {ok, More} -> scan_records(Fd, Pos, <<Buf/binary, More/binary>>, From, N, Count, Bytes);
                _ -> {Pos, Count, Bytes}
            end;
        bad ->
            {Pos, Count, Bytes}
    end.

record(<<Len:32, Crc:32, Entry:Len/binary, Rest/binary>>) ->
    case erlang:crc32(Entry) of
        Crc -> {ok, Entry, Len + 8, Rest};
        _ -> bad
    end;
record(<<Len:32, _/binary>> = Buf) when Len =< ?SEGMENT * 4 ->
    {more, Len + 8 - byte_size(Buf)};
record(Buf) when byte_size(Buf) < 4 ->
    {more, 8};
record(_) ->
    bad.

%% @doc Stores the position and closes the files.
-spec close(spool()) -> ok.
close(S) ->
    _ = save(S),
    close_fd(S#spool.out),
    close_fd(S#spool.in).

close_fd({_, Fd}) ->
    _ = file:close(Fd),
    ok;
close_fd(none) ->
    ok.

%% @doc Appends entries, all or none. On return they are durable. {error, full}
%% if the spool would grow beyond its bound.
-spec append(spool(), [entry()]) -> {ok, spool()} | {error, term(), spool()}.
append(S, Entries) ->
    write(S, [pack(E) || E <- Entries], S#spool.max).

%% @doc Like append/2, without a bound.
-spec append_always(spool(), [entry()]) -> {ok, spool()} | {error, term(), spool()}.
append_always(S, Entries) ->
    write(S, [pack(E) || E <- Entries], infinity).

pack(Entry) ->
    Bin = term_to_binary(Entry),
    <<(byte_size(Bin)):32, (erlang:crc32(Bin)):32, Bin/binary>>.

write(#spool{bytes = Bytes} = S, Records, Max) ->
    case Bytes + iolist_size(Records) of
        Sum when Sum > Max -> {error, full, S};
        _ -> write(S, Records)
    end.

write(#spool{out = none} = S, Records) ->
    case create(S) of
        {ok, S1} -> write(S1, Records);
        {error, Why} -> {error, Why, S}
    end;
write(#spool{out = {N, Fd}, ends = Ends} = S, Records) ->
    End = maps:get(N, Ends),
    Size = iolist_size(Records),
    try
        ok = file:write(Fd, Records),
        ok = file:datasync(Fd),
        S1 = S#spool{ends = Ends#{N := End + Size}, count = S#spool.count + length(Records),
                     bytes = S#spool.bytes + Size},
        {ok, if End + Size > ?SEGMENT -> finish(S1); true -> S1 end}
    catch error:{badmatch, {error, Why}} ->
        %% What was written of it must not be found by the next run.
        _ = file:position(Fd, End),
        _ = file:truncate(Fd),
        {error, Why, finish(S)}
    end.

create(#spool{next = N, dir = Dir} = S) ->
    Name = segment_file(S, N),
    try
        {ok, Fd} = file:open(Name, [write, exclusive, raw, binary]),
        ok = file:write(Fd, ?MAGIC),
        ok = file:datasync(Fd),
        ok = sync_dir(Dir),
        {ok, S#spool{out = {N, Fd}, next = N + 1, ends = (S#spool.ends)#{N => length(?MAGIC)}}}
    catch error:{badmatch, {error, Why}} ->
        _ = file:delete(Name),
        {error, Why}
    end.

sync_dir(Dir) ->
    {ok, Fd} = file:open(Dir, [read, raw, directory]),
    Result = file:sync(Fd),
    _ = file:close(Fd),
    Result.

finish(#spool{out = Out} = S) ->
    close_fd(Out),
    S#spool{out = none}.

%% @doc Returns the next entry that was not taken yet, and its size in bytes.
-spec peek(spool()) -> {entry(), pos_integer(), spool()} | {empty, spool()}.
peek(#spool{head = {Entry, Size}} = S) ->
    {Entry, Size, S};
peek(#spool{at = {N, Off}, ends = Ends, next = Next} = S) ->
    case Ends of
        #{N := End} when Off < End ->
            read(S, End);
        _ when N + 1 < Next ->
            close_fd(S#spool.in),
            peek(S#spool{at = {N + 1, length(?MAGIC)}, in = none, buf = <<>>});
        _ ->
            {empty, recount(S)}
    end.

%% After a skip there are fewer entries than were counted.
recount(#spool{taken = Taken, count = Count} = S) ->
    case queue:len(Taken) of
        Count -> S;
        0 -> reset(S);
        Len -> S#spool{count = Len, bytes = lists:sum([Size || {_, Size} <- queue:to_list(Taken)])}
    end.

read(#spool{at = {N, _}, in = none} = S, End) ->
    case file:open(segment_file(S, N), [read, raw, binary]) of
        {ok, Fd} -> read(S#spool{in = {N, Fd}}, End);
        {error, Why} -> skip(S, Why)
    end;
read(#spool{at = {N, Off}, in = {N, Fd}, buf = Buf} = S, End) ->
    case record(Buf) of
        {ok, Entry, Size, Rest} ->
            Term = binary_to_term(Entry),
            {Term, Size, S#spool{head = {Term, Size}, buf = Rest}};
        {more, Need} ->
            From = Off + byte_size(Buf),
            case file:pread(Fd, From, min(max(?READ, Need), End - From)) of
                {ok, More} -> read(S#spool{buf = <<Buf/binary, More/binary>>}, End);
                eof -> skip(S, eof);
                {error, Why} -> skip(S, Why)
            end;
        bad ->
            skip(S, checksum)
    end.

%% What was readable when it was counted no longer is.
skip(#spool{at = {N, _}, ends = Ends} = S, Why) ->
    ?ERROR_MSG("The rest of the spool segment ~ts is lost: ~p", [segment_file(S, N), Why]),
    close_fd(S#spool.in),
    peek(S#spool{at = {N, maps:get(N, Ends)}, in = none, buf = <<>>}).

%% @doc Takes the entry that peek/1 returned.
-spec take(spool()) -> spool().
take(#spool{head = {_, Size}, at = {N, Off}, taken = Taken} = S) ->
    At = {N, Off + Size},
    S#spool{head = none, at = At, taken = queue:in({At, Size}, Taken)}.

%% @doc The N oldest entries that were taken are archived.
-spec ack(spool(), non_neg_integer()) -> spool().
ack(S, 0) ->
    drop_segments(S);
ack(#spool{taken = Taken, count = Count, bytes = Bytes, unsaved = Unsaved} = S, N) ->
    {{value, {At, Size}}, Rest} = queue:out(Taken),
    ack(S#spool{taken = Rest, acked = At, count = Count - 1, bytes = Bytes - Size,
                unsaved = Unsaved + 1}, N - 1).

drop_segments(#spool{count = 0} = S) ->
    reset(S);
drop_segments(#spool{first = First, acked = {N, _}} = S) when First < N ->
    _ = file:delete(segment_file(S, First)),
    drop_segments(S#spool{first = First + 1, ends = maps:remove(First, S#spool.ends)});
drop_segments(#spool{unsaved = Unsaved} = S) when Unsaved >= ?SAVE_EVERY ->
    save(S);
drop_segments(S) ->
    S.

%% The position goes first: one that outlived its segments would be taken for
%% that of segments to come.
reset(#spool{dir = Dir, ends = Ends, next = Next} = S) ->
    close_fd(S#spool.out),
    close_fd(S#spool.in),
    _ = file:delete(position_file(Dir)),
    _ = [file:delete(segment_file(S, N)) || N <- maps:keys(Ends)],
    empty(S#spool{first = Next, at = {Next, 0}, acked = {Next, 0}}).

empty(#spool{next = Next} = S) ->
    Begin = {Next, length(?MAGIC)},
    S#spool{ends = #{}, out = none, in = none, buf = <<>>, head = none, first = Next,
            at = Begin, acked = Begin, taken = queue:new(), count = 0, bytes = 0, unsaved = 0}.

save(#spool{count = 0} = S) ->
    S;
save(#spool{dir = Dir, acked = {N, Off}} = S) ->
    New = filename:join(Dir, "position.new"),
    _ = file:write_file(New, io_lib:format("~B ~B~n", [N, Off]), [raw]),
    _ = file:rename(New, position_file(Dir)),
    S#spool{unsaved = 0}.

%% @doc All that was taken and not acknowledged is to be taken again.
-spec rewind(spool()) -> spool().
rewind(#spool{acked = Acked} = S) ->
    close_fd(S#spool.in),
    save(S#spool{at = Acked, in = none, buf = <<>>, head = none, taken = queue:new()}).

%% @doc Entries that are not archived.
-spec count(spool()) -> non_neg_integer().
count(#spool{count = Count}) ->
    Count.

%% @doc Bytes of the entries that are not archived.
-spec bytes(spool()) -> non_neg_integer().
bytes(#spool{bytes = Bytes}) ->
    Bytes.
