%%% @doc Brings the archives of mod_mam over to mamlog, while both run.
%%%
%%% From the moment that mod_mamlog is loaded beside mod_mam, it has every message
%%% that mod_mam archives in its spool, which is held. The import sends what
%%% mod_mam has, from the beginning to shortly before now, and then the spool is let
%%% go. What is newer comes from the spool alone: under load mod_mam's tables may get
%%% a row behind one that is younger, the spool has the order of delivery. Messages that
%%% are in both have the same key, mod_mamlog:mam_key/2, so none is archived
%%% twice. An import that was interrupted is simply run again.
-module(mod_mamlog_import).

-export([began/1, holds/2, run/1]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("mod_mam.hrl").

-define(CHUNK, 100).          % messages of one request
-define(CHUNK_BYTES, 100000).
-define(PAGE, 1000).          % rows of one query
-define(TRIES, 120).          % once a second, while the archive can't be reached
-define(LATE, 5000).          % milliseconds that mod_mam may take to write a row

%% A message as mod_mam has it.
-record(row, {
    id :: integer(),               % microseconds, which is also the time
    peer :: jid() | undefined,
    nick :: binary(),
    el :: xmlel()
}).

%% @doc From now on the spool has what the host archives.
-spec began(binary()) -> ok.
began(Host) ->
    persistent_term:put({?MODULE, began, Host}, erlang:system_time(microsecond)).

%% Up to when mod_mam's rows are imported, in microseconds: all are written, and what
%% is newer is in the spool.
until(Host) ->
    Began = persistent_term:get({?MODULE, began, Host}),
    Until = erlang:system_time(microsecond) - ?LATE * 1000,
    case Began - Until of
        Early when Early > 0 ->
            timer:sleep(Early div 1000 + 1),
            Began;
        _ ->
            Until
    end.

%% @doc Whether the spool of a host is held: while an import runs, and as long as
%% mod_mam is the archive and was not imported.
-spec holds(binary(), gen_mod:opts()) -> boolean().
holds(Host, #{keep_mam_store := Keep} = Opts) ->
    persistent_term:get({?MODULE, Host}, false)
        orelse (not Keep andalso gen_mod:is_loaded(Host, mod_mam)
                andalso not filelib:is_file(marker(Host, Opts))).

%% Says that the archives of the host were imported.
marker(Host, Opts) ->
    filename:join([mod_mamlog:spool_dir(Opts), Host, "imported"]).

%% @doc Imports everything of a host and its rooms, and lets the spool go.
-spec run(binary()) -> {ok | error, string()}.
run(Host) ->
    case gen_mod:is_loaded(Host, mod_mamlog) of
        false ->
            {error, "mod_mamlog is not loaded on this host"};
        true ->
            case persistent_term:get({?MODULE, Host}, false) of
                true -> {error, "an import of this host is running"};
                false -> run_once(Host)
            end
    end.

run_once(Host) ->
    Opts = gen_mod:get_module_opts(Host, mod_mamlog),
    Domains = mod_mamlog_link:domains(Host),
    persistent_term:put({?MODULE, Host}, true),
    try
        lists:foreach(fun(D) -> mod_mamlog_link:hold(D, true) end, Domains),
        Until = until(Host),
        Owners = mnesia_owners(Host, Domains) ++ sql_owners(Host, Domains),
        Count = lists:foldl(fun(O, N) -> N + import(O, Host, Until) end, 0, Owners),
        ok = file:write_file(marker(Host, Opts), <<>>, [sync]),
        {ok, io_lib:format("~B messages of ~B archives", [Count, length(Owners)])}
    catch
        throw:Why ->
            {error, Why};
        Class:Why:Stack ->
            ?ERROR_MSG("The import of ~ts failed: ~p", [Host, {Class, Why, Stack}]),
            {error, "it failed; see the log. What was imported stays"}
    after
        persistent_term:erase({?MODULE, Host}),
        lists:foreach(fun(D) -> mod_mamlog_link:hold(D, holds(Host, Opts)) end, Domains)
    end.

%%% One archive

import({Source, Kind, {LUser, Domain} = US}, Host, Until) ->
    Rows = rows(Source, Host, Kind, US, start, Until),
    N = import_rows(Rows, {Source, Kind, US}, {Host, Until}, none, 0),
    Kind == chat andalso preferences(Source, Host, US),
    ?DEBUG("Imported ~B messages of ~ts@~ts", [N, LUser, Domain]),
    N.

import_rows({[], _}, _, _, _, N) ->
    N;
import_rows({Rows, Next}, {Source, Kind, {_, Domain} = US} = Owner, {Host, Until} = From, Last, N) ->
    {Messages, Last1} = messages(Rows, Kind, US, Last, []),
    send(Domain, Messages),
    More = case Next of
               done -> {[], done};
               _ -> rows(Source, Host, Kind, US, Next, Until)
           end,
    import_rows(More, Owner, From, Last1, N + length(Messages)).

%% Messages to oneself are in mod_mam's archives twice: as sent and as received.
messages([], _Kind, _US, Last, Acc) ->
    {lists:reverse(Acc), Last};
messages([#row{id = Id} = Row | Rows], Kind, {U, S} = US, Last, Acc) ->
    try xmpp:decode(Row#row.el, ?NS_CLIENT, [ignore_els]) of
        #message{from = #jid{luser = U, lserver = S}, to = #jid{luser = U, lserver = S}} = Msg
          when Kind == chat ->
            Note = xmpp:set_els(Msg, (mod_mamlog:strip(Msg, S))#message.sub_els),
            case Last of
                {Note, At} when Id - At < 60000000 -> messages(Rows, Kind, US, none, Acc);
                _ -> messages(Rows, Kind, US, {Note, Id}, [message(Kind, Row, Msg, US) | Acc])
            end;
        #message{} = Msg ->
            messages(Rows, Kind, US, Last, [message(Kind, Row, Msg, US) | Acc]);
        _ ->
            messages(Rows, Kind, US, Last, Acc)
    catch _:{xmpp_codec, Why} ->
        ?WARNING_MSG("Message ~B of ~ts@~ts can't be imported: ~ts", [Id, U, S, xmpp:format_error(Why)]),
        messages(Rows, Kind, US, Last, Acc)
    end.

message(chat, #row{id = Id}, #message{from = From, to = To} = Msg, {U, S}) ->
    Owner = jid:make(U, S),
    {Dir, Peer} = case From of
                      #jid{luser = U, lserver = S} -> {<<"out">>, To};
                      _ -> {<<"in">>, From}
                  end,
    Head = mod_mamlog:head(Dir, Owner, Peer, mod_mamlog:contact(U, S, Peer), extra(Id)),
    {Head, mod_mamlog:xml(mod_mamlog:strip(Msg, S)), mod_mamlog:mam_key(Id, Msg)};
message(groupchat, #row{id = Id, nick = Nick, peer = Sender}, Msg, {U, S}) ->
    Occupant = jid:make(U, S, Nick),
    Real = case Sender of
               #jid{} -> iolist_to_binary(mod_mamlog:attribute(<<"sender">>, jid:encode(Sender)));
               undefined -> <<>>
           end,
    Sent = mod_mamlog:strip((xmpp:set_from(Msg, Occupant))#message{to = undefined}, S),
    {mod_mamlog:head(<<"room">>, jid:make(U, S), Occupant, false, <<Real/binary, (extra(Id))/binary>>),
     mod_mamlog:xml(Sent), mod_mamlog:mam_key(Id, Msg)}.

extra(Id) ->
    iolist_to_binary([" import='true' stamp='", mod_mamlog:stamp(Id), $']).

send(_Domain, []) ->
    ok;
send(Domain, Messages) ->
    {Chunk, Rest} = chunk(Messages, 0, 0, []),
    send_chunk(Domain, Chunk, ?TRIES),
    send(Domain, Rest).

chunk([{Head, Xml, _} = M | Rest], N, Bytes, Acc)
  when Acc == []; N < ?CHUNK, Bytes + byte_size(Xml) < ?CHUNK_BYTES ->
    chunk(Rest, N + 1, Bytes + byte_size(Head) + byte_size(Xml), [M | Acc]);
chunk(Rest, _, _, Acc) ->
    {lists:reverse(Acc), Rest}.

send_chunk(Domain, _Chunk, 0) ->
    throw("the archive of " ++ binary_to_list(Domain) ++ " can't be reached");
send_chunk(Domain, Chunk, Tries) ->
    case mod_mamlog_link:import(Domain, Chunk) of
        {ok, Words} ->
            Bad = [W || <<"!", W/binary>> <- Words],
            case {Bad, lists:member(<<"resource-constraint">>, Bad)
                       orelse lists:member(<<"internal-server-error">>, Bad)} of
                {[], _} ->
                    ok;
                {_, true} ->
                    again(Domain, Chunk, Tries);
                {[<<"conflict">> | _], _} ->
                    throw("an archive of " ++ binary_to_list(Domain) ++ " has messages already that "
                          "are newer and were not imported");
                {[Why | _], _} ->
                    throw("the archive of " ++ binary_to_list(Domain) ++ " refuses messages: "
                          ++ binary_to_list(Why))
            end;
        {error, _} ->
            again(Domain, Chunk, Tries)
    end.

again(Domain, Chunk, Tries) ->
    timer:sleep(1000),
    send_chunk(Domain, Chunk, Tries - 1).

%% After the messages, which were archived under other rules.
preferences(Source, Host, {U, S} = US) ->
    case prefs(Source, Host, US) of
        {Default, Always, Never} ->
            Asker = jid:make(U, S, <<"import">>),
            Prefs = #mam_prefs{xmlns = ?NS_MAM_2, default = Default,
                               always = [jid:make(J) || J <- Always],
                               never = [jid:make(J) || J <- Never]},
            IQ = #iq{type = set, id = <<"import">>, from = Asker, to = jid:make(U, S), sub_els = [Prefs]},
            try mod_mamlog_query:ask(IQ, S, Asker, <<>>) of
                {ok, Els} ->
                    case xmpp:decode(lists:last(Els), ?NS_CLIENT, [ignore_els]) of
                        #iq{type = result} -> ok;
                        _ -> ?WARNING_MSG("The preferences of ~ts@~ts are not imported", [U, S])
                    end
            catch throw:#stanza_error{} ->
                throw("preferences can't be set: the archive can't be reached")
            end;
        none ->
            ok
    end.

%%% mod_mam's tables

%% mnesia: all of an archive at once, as they are kept.
mnesia_owners(Host, Domains) ->
    case lists:member(archive_msg, mnesia:system_info(tables)) of
        true ->
            %% With the table locked: an archive that grows may be moved within dets' file,
            %% past who reads it from end to end.
            {atomic, Owners} = mnesia:transaction(fun() -> mnesia:all_keys(archive_msg) end),
            [{mnesia, kind(S, Host), US} || {_, S} = US <- Owners, lists:member(S, Domains)];
        false ->
            []
    end.

kind(Host, Host) -> chat;
kind(_, _) -> groupchat.

rows(mnesia, _Host, _Kind, US, start, Until) ->
    Rows = [#row{id = misc:now_to_usec(M#archive_msg.timestamp),
                 peer = peer(M#archive_msg.peer), nick = M#archive_msg.nick,
                 el = case M#archive_msg.packet of
                          #xmlel{} = El -> El;
                          Pkt -> xmpp:encode(Pkt)
                      end}
            || M <- mnesia:dirty_read(archive_msg, US)],
    {lists:keysort(#row.id, [R || #row{id = Id} = R <- Rows, Id =< Until]), done};
rows(sql, Host, Kind, US, start, Until) ->
    rows(sql, Host, Kind, US, {0, 0}, Until);
rows(sql, Host, Kind, {U, S} = US, {Time, Id}, Until) ->
    T = integer_to_binary(Time),
    Found = sql(Host, ["select timestamp, id, xml, peer, nick from archive where username=",
                       string(Host, sql_name(Kind, US)), and_host(Host),
                       " and (timestamp > ", T, " or (timestamp = ", T, " and id > ",
                       integer_to_binary(Id), ")) and timestamp <= ", integer_to_binary(Until),
                       " order by timestamp, id limit ",
                       integer_to_binary(?PAGE)]),
    Rows = lists:append([sql_row(Kind, {U, S}, Row) || Row <- Found]),
    case Found of
        [] -> {[], done};
        _ ->
            [LastTime, LastId | _] = lists:last(Found),
            case Rows of
                [] -> rows(sql, Host, Kind, US, {int(LastTime), int(LastId)}, Until);
                _ -> {Rows, {int(LastTime), int(LastId)}}
            end
    end.

sql_row(_Kind, {U, S}, [Time, _Id, Xml, Peer, Nick]) ->
    try xml_compress:decode(Xml, jid:encode({U, S, <<>>}), Peer) of
        #xmlel{} = El -> [#row{id = int(Time), peer = peer(Peer), nick = Nick, el = El}];
        _ -> []
    catch _:_ ->
        ?WARNING_MSG("Message ~p of ~ts@~ts can't be read", [Time, U, S]),
        []
    end.

peer(undefined) -> undefined;
peer({_, _, _} = LJID) -> jid:make(LJID);
peer(Text) ->
    try jid:decode(Text)
    catch _:_ -> undefined
    end.

sql_owners(Host, Domains) ->
    case gen_mod:is_loaded(Host, mod_mam) andalso gen_mod:db_mod(Host, mod_mam) == mod_mam_sql of
        true ->
            lists:append([sql_owner(Host, Domains, Name, Kind)
                          || [Name, Kind] <- sql(Host, ["select distinct username, kind from archive"
                                                        " where 1=1", and_host(Host)])]);
        false ->
            []
    end.

sql_owner(Host, _Domains, Name, <<"chat">>) ->
    [{sql, chat, {Name, Host}}];
sql_owner(_Host, Domains, Name, _) ->
    case jid:decode(Name) of
        #jid{luser = U, lserver = S} -> [{sql, groupchat, {U, S}} || lists:member(S, Domains)]
    end.

sql_name(chat, {U, _}) -> U;
sql_name(groupchat, {U, S}) -> jid:encode({U, S, <<>>}).

sql(Host, Query) ->
    case ejabberd_sql:sql_query(Host, [iolist_to_binary(Query)]) of
        {selected, _, Rows} -> Rows;
        {error, Why} -> error({sql, Why})
    end.

string(Host, Text) ->
    ejabberd_sql:to_string_literal(ejabberd_option:sql_type(Host), Text).

%% In databases that hold several hosts.
and_host(Host) ->
    New = case erlang:function_exported(ejabberd_sql, use_multihost_schema, 0) of
              true -> ejabberd_sql:use_multihost_schema();
              false -> ejabberd_sql:use_new_schema()
          end,
    case New of
        true -> [" and server_host=", string(Host, Host)];
        false -> []
    end.

int(N) when is_integer(N) -> N;
int(Text) -> binary_to_integer(Text).

prefs(mnesia, _Host, US) ->
    case mnesia:dirty_read(archive_prefs, US) of
        [#archive_prefs{default = D, always = A, never = N}] -> {D, A, N};
        [] -> none
    end;
prefs(sql, Host, {U, _}) ->
    case sql(Host, ["select def, always, never from archive_prefs where username=", string(Host, U),
                    and_host(Host)]) of
        [[D, A, N]] -> {binary_to_existing_atom(D, utf8), ejabberd_sql:decode_term(A),
                        ejabberd_sql:decode_term(N)};
        [] -> none
    end.
