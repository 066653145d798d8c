%%% @doc What clients ask of archives, passed on to mamlog: queries, the form,
%%% preferences and metadata; and the features that say that they may.
%%%
%%% A request is passed on by a process of its own, so nobody waits but who asked.
%%% Whatever happens, the asker gets an answer.
-module(mod_mamlog_query).

-export([claim/1, release/1, process_iq/1, decode_iq_subel/1, relay/4, ask/4,
         disco_sm_features/5, disco_local_features/5]).

-include("logger.hrl").
-include("xmpp.hrl").

-define(NS, "urn:mamlog:attach:1").
-define(NS_TRIM, <<"urn:mamlog:trim:0">>).

%% @doc Has the queries of accounts come here, unless mod_mam is their archive.
-spec claim(binary()) -> ok.
claim(Host) ->
    case is_ours(Host) of
        true ->
            gen_iq_handler:add_iq_handler(ejabberd_sm, Host, ?NS_MAM_2, ?MODULE, process_iq),
            gen_iq_handler:add_iq_handler(ejabberd_sm, Host, ?NS_TRIM, ?MODULE, process_iq);
        false -> ok
    end.

is_ours(Host) ->
    not gen_mod:is_loaded(Host, mod_mam) orelse
        gen_mod:get_module_opt(Host, mod_mamlog, keep_mam_store).

-spec release(binary()) -> ok.
release(Host) ->
    gen_iq_handler:remove_iq_handler(ejabberd_sm, Host, ?NS_TRIM),
    case gen_mod:is_loaded(Host, mod_mam) of
        true -> gen_iq_handler:add_iq_handler(ejabberd_sm, Host, ?NS_MAM_2, mod_mam, process_iq_v0_3);
        false -> gen_iq_handler:remove_iq_handler(ejabberd_sm, Host, ?NS_MAM_2)
    end.

%% Called instead of the codec, which doesn't know all of the namespace.
-spec decode_iq_subel(xmlel()) -> xmlel().
decode_iq_subel(El) ->
    El.

-spec process_iq(iq()) -> iq() | ignore.
process_iq(#iq{from = #jid{luser = U, lserver = S}, to = #jid{luser = U, lserver = S} = To} = IQ) ->
    relay(IQ, S, To, <<>>),
    ignore;
process_iq(IQ) ->
    xmpp:make_error(IQ, xmpp:err_forbidden()).

%% @doc Passes a request on, and its answer to the asker. Domain is that of the
%% archive's owner, Extra are attributes of the request.
-spec relay(iq(), binary(), jid(), binary()) -> ok.
relay(#iq{from = From} = IQ, Domain, Owner, Extra) ->
    Session = session(From),
    Before = before(From),
    Pid = spawn(fun() ->
                        Answer = answer(IQ, Domain, Owner, Extra),
                        await(Before),
                        deliver(Answer, Session)
                end),
    put(?MODULE, maps:put(From, Pid, get_relays())),
    ok.

%% One asker gets answers in the order of the questions, which all come through
%% this process: that of the session, or the room.
before(From) ->
    maps:get(From, get_relays(), none).

get_relays() ->
    case get(?MODULE) of
        undefined -> #{};
        Relays when map_size(Relays) < 32 -> Relays;
        Relays -> maps:filter(fun(_, Pid) -> is_process_alive(Pid) end, Relays)
    end.

await(none) ->
    ok;
await(Pid) ->
    Monitor = monitor(process, Pid),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end.

%% The very session that asks, if it is one of ours: to another one the answer
%% means nothing.
session(#jid{luser = U, lserver = S, lresource = R}) ->
    case ejabberd_router:is_my_host(S) of
        true -> ejabberd_sm:get_session_pid(U, S, R);
        false -> route
    end.

answer(IQ, Domain, Owner, Extra) ->
    try
        {ok, Els} = ask(IQ, Domain, Owner, Extra),
        Stanzas = [xmpp:decode(El, ?NS_CLIENT, [ignore_els]) || El <- Els],
        #iq{id = Id, type = Type} = lists:last(Stanzas),
        true = Id == IQ#iq.id andalso (Type == result orelse Type == error),
        Stanzas
    catch
        throw:#stanza_error{} = Error ->
            [xmpp:make_error(IQ, Error)];
        Class:Why ->
            ?ERROR_MSG("An answer of the archive of ~ts can't be passed on: ~p", [Domain, {Class, Why}]),
            [xmpp:make_error(IQ, xmpp:err_internal_server_error())]
    end.

%% @doc Asks mamlog, and returns the stanzas that it answers with, the iq last.
%% Throws a stanza error.
-spec ask(iq(), binary(), jid(), binary()) -> {ok, [xmlel()]}.
ask(#iq{from = From} = IQ, Domain, #jid{luser = U, lserver = S}, Extra) ->
    Query = ["<query xmlns='" ?NS "'", mod_mamlog:attribute(<<"owner">>, jid:encode({U, S, <<>>})),
             mod_mamlog:attribute(<<"asker">>, jid:encode(From)), Extra, $>,
             fxml:element_to_binary(xmpp:encode(IQ)), "</query>"],
    case mod_mamlog_link:request(Domain, get, Query) of
        {result, [#xmlel{name = <<"page">>} = Page]} ->
            Text = fxml:get_tag_cdata(Page),
            case fxml_stream:parse_element(<<"<page xmlns='jabber:client'>", Text/binary, "</page>">>) of
                #xmlel{children = Els} -> {ok, [El || #xmlel{} = El <- Els]};
                {error, Why} -> error({page, Why})
            end;
        {error, Refusal} ->
            throw(Refusal);
        timeout ->
            throw(xmpp:err_remote_server_timeout(<<"The archive doesn't answer">>, IQ#iq.lang));
        down ->
            throw(xmpp:err_remote_server_timeout(<<"The archive can't be reached">>, IQ#iq.lang))
    end.

deliver(Stanzas, route) ->
    lists:foreach(fun ejabberd_router:route/1, Stanzas);
deliver(Stanzas, Pid) when is_pid(Pid) ->
    lists:foreach(fun(Stanza) -> ejabberd_c2s:route(Pid, {route, Stanza}) end, Stanzas);
deliver(_Stanzas, none) ->
    ok.

%%% Features

disco_sm_features({error, _} = Acc, _From, _To, _Node, _Lang) ->
    Acc;
disco_sm_features(Acc, #jid{luser = U, lserver = S}, #jid{luser = U, lserver = S}, <<>>, _Lang) ->
    add_features(Acc, S);
disco_sm_features(Acc, _From, _To, _Node, _Lang) ->
    Acc.

disco_local_features({error, _} = Acc, _From, _To, _Node, _Lang) ->
    Acc;
disco_local_features(Acc, _From, #jid{lserver = S}, <<>>, _Lang) ->
    add_features(Acc, S);
disco_local_features(Acc, _From, _To, _Node, _Lang) ->
    Acc.

add_features(Acc, Host) ->
    case is_ours(Host) andalso mod_mamlog_link:features(Host) of
        [_ | _] = New ->
            Old = case Acc of {result, L} -> L; empty -> [] end,
            {result, Old ++ (New -- Old)};
        _ ->
            Acc
    end.
