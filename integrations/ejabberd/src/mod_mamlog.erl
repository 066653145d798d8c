%%% @doc mamlog as the message archive (XEP-0313) of an ejabberd host.
%%%
%%% This module captures what accounts send and receive, before it is delivered,
%%% and waits for the archive in the process of the sender. mod_mamlog_room does
%%% the same for rooms, mod_mamlog_query relays what clients ask of archives,
%%% mod_mamlog_link talks to mamlog, and mod_mamlog_import brings over what
%%% mod_mam has.
%%%
%%% While mod_mam runs on the host too, every message tells which of the two took
%%% it: mod_mam's hooks come just before ours, and leave their mark on it. So there
%%% is neither a gap nor a double when mod_mam is stopped or started. What a
%%% message has to carry from hook to hook is in its meta data, under `mamlog':
%%%
%%%   {out, Item, Message}  to be archived for its sender together with the copy
%%%                         of its recipient
%%%   {sent, Id}            archived for its sender; Id is none if it has none
%%%   {late, Id}            archived for its recipient, and stamped after mod_mam
%%%   done                  nothing is left to do
-module(mod_mamlog).
-behaviour(gen_mod).

%% gen_mod
-export([start/2, stop/1, reload/3, depends/2, mod_opt_type/1, mod_options/1, mod_doc/0]).
%% Hooks
-export([user_send_packet_resumed/1, user_send_packet/1, user_send_packet_strip/1, sm_receive_packet/1,
         user_receive_packet/1, offline_message/1, remove_user/2,
         component_connected/1, component_send_packet/1, config_reloaded/0]).
%% Commands
-export([status/0, import/1]).
%% For our other modules
-export([mode/2, mam_key/2, strip/2, worth/2, head/5, xml/1, stamp/1, stamped/3, attribute/2, bounce/1,
         contact/3, spool_dir/1, refresh/1]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("ejabberd_commands.hrl").
-include("mod_roster.hrl").

-type mode() :: primary | beside | shadow.

%%% gen_mod

start(Host, Opts) ->
    _ = code:ensure_loaded(mod_mam),
    warn(Host),
    case mod_mamlog_link:start(Host, Host, accounts, Opts) of
        ok ->
            [ejabberd_hooks:add(Hook, Scope, Module, Function, Prio)
             || {Hook, Scope, Module, Function, Prio} <- hooks(Host)],
            [ejabberd_hooks:add(Hook, Module, Function, Prio)
             || {Hook, Module, Function, Prio} <- global_hooks()],
            mod_mamlog_import:began(Host),
            ejabberd_commands:register_commands(?MODULE, commands()),
            refresh(Host),
            ok;
        {error, _} = Error ->
            Error
    end.

stop(Host) ->
    [ejabberd_hooks:delete(Hook, Scope, Module, Function, Prio)
     || {Hook, Scope, Module, Function, Prio} <- hooks(Host)],
    case gen_mod:is_loaded_elsewhere(Host, ?MODULE) of
        true ->
            ok;
        false ->
            [ejabberd_hooks:delete(Hook, Module, Function, Prio)
             || {Hook, Module, Function, Prio} <- global_hooks()],
            ejabberd_commands:unregister_commands(commands())
    end,
    mod_mamlog_query:release(Host),
    mod_mamlog_link:stop(Host).

reload(Host, Opts, _OldOpts) ->
    warn(Host),
    mod_mamlog_link:reload(Host, Opts),
    refresh(Host),
    ok.

depends(_Host, _Opts) ->
    [].

%% Hooks of the same priority are run in the order of the modules' names: mod_mam,
%% then mod_mamlog.
hooks(Host) ->
    [{user_send_packet, Host, ?MODULE, user_send_packet_resumed, 1},
     {user_send_packet, Host, ?MODULE, user_send_packet, 88},
     {user_send_packet, Host, ?MODULE, user_send_packet_strip, 500},
     {sm_receive_packet, Host, ?MODULE, sm_receive_packet, 50},
     {user_receive_packet, Host, ?MODULE, user_receive_packet, 88},
     {offline_message_hook, Host, ?MODULE, offline_message, 49},
     {remove_user, Host, ?MODULE, remove_user, 50},
     {muc_filter_message, Host, mod_mamlog_room, muc_filter_message, 50},
     {muc_process_iq, Host, mod_mamlog_room, muc_process_iq, 49},
     {get_room_config, Host, mod_mamlog_room, get_room_config, 60},
     {set_room_option, Host, mod_mamlog_room, set_room_option, 60},
     {remove_room, Host, mod_mamlog_room, remove_room, 50},
     {room_destroyed, Host, mod_mamlog_room, room_destroyed, 50},
     {disco_sm_features, Host, mod_mamlog_query, disco_sm_features, 50},
     {disco_local_features, Host, mod_mamlog_query, disco_local_features, 60}].

global_hooks() ->
    [{component_connected, ?MODULE, component_connected, 50},
     {component_send_packet, ?MODULE, component_send_packet, 10},
     {filter_packet, mod_mamlog_room, filter_packet, 50},
     {ejabberd_started, ?MODULE, config_reloaded, 90},
     {config_reloaded, ?MODULE, config_reloaded, 90}].

%% What has to follow other modules that start and stop: a process for each domain
%% with rooms, and who answers archive queries.
-spec refresh(binary()) -> ok.
refresh(Host) ->
    case gen_mod:is_loaded(Host, ?MODULE) of
        true ->
            Rooms = case gen_mod:is_loaded(Host, mod_muc) of
                        true -> gen_mod:get_module_opt_hosts(Host, mod_muc);
                        false -> []
                    end,
            lists:foreach(fun(Domain) -> mod_mamlog_link:ensure(Host, Domain) end, Rooms),
            mod_mamlog_query:claim(Host);
        false ->
            ok
    end.

config_reloaded() ->
    lists:foreach(fun refresh/1, ejabberd_option:hosts()).

warn(Host) ->
    case gen_mod:is_loaded(Host, mod_offline)
        andalso gen_mod:get_module_opt(Host, mod_offline, use_mam_for_storage) of
        true -> ?ERROR_MSG("mod_offline of ~ts has use_mam_for_storage, which needs mod_mam: "
                           "set it to false", [Host]);
        false -> ok
    end.

mod_opt_type(component) -> econf:domain();
mod_opt_type(on_failure) -> econf:enum([spool, bounce, pass]);
mod_opt_type(timeout) -> econf:timeout(second);
mod_opt_type(spool_dir) -> econf:directory(write);
mod_opt_type(spool_max) -> econf:pos_int();
mod_opt_type(keep_mam_store) -> econf:bool().

mod_options(_Host) ->
    [component,
     {on_failure, spool},
     {timeout, timer:seconds(5)},
     {spool_dir, undefined},
     {spool_max, 1073741824},
     {keep_mam_store, false}].

mod_doc() ->
    #{desc => "Keeps the message archive (XEP-0313) of accounts and rooms in mamlog.",
      opts =>
          [{component,
            #{value => "Domain",
              desc => "The domain of the component that mamlog is. Required."}},
           {on_failure,
            #{value => "spool | bounce | pass",
              desc => "What becomes of a message that can't be archived now: it is delivered "
                      "and kept on disk until it can ('spool', the default), given back to its "
                      "sender ('bounce'), or delivered and not archived ('pass')."}},
           {timeout,
            #{value => "timeout()",
              desc => "How long the archive may take to answer. The default is 5 seconds."}},
           {spool_dir,
            #{value => "Path",
              desc => "Where the spool is; the default is 'mamlog' in the directory of Mnesia."}},
           {spool_max,
            #{value => "Bytes",
              desc => "How large the spool of a domain may grow before messages are given back "
                      "to their senders. The default is 1073741824."}},
           {keep_mam_store,
            #{value => "true | false",
              desc => "If mod_mam is loaded as well: whether it only goes on storing, while "
                      "mamlog answers, or still is the archive. The default is 'false'."}}]}.

-spec spool_dir(gen_mod:opts()) -> file:filename_all().
spool_dir(#{spool_dir := undefined}) ->
    filename:join(mnesia:system_info(directory), "mamlog");
spool_dir(#{spool_dir := Dir}) ->
    Dir.

%%% The component

%% Runs in the component's process, which must never wait for itself.
component_connected(Domain) ->
    Components = [gen_mod:get_module_opt(Host, ?MODULE, component)
                  || Host <- ejabberd_option:hosts(), gen_mod:is_loaded(Host, ?MODULE)],
    case lists:member(Domain, Components) of
        true ->
            put(mod_mamlog_component, true),
            mod_mamlog_link:component_connected(Domain, self());
        false ->
            ok
    end.

%% Runs in the component's process, for each stanza that it sends.
component_send_packet({#iq{type = Type, id = Id, to = #jid{luser = <<>>, lserver = Domain},
                           sub_els = Els}, #{socket := Socket} = State} = Acc)
  when Type == result; Type == error ->
    case mod_mamlog_link:answer(Domain, self(), Id, Type, Els, Socket) of
        true -> {stop, {drop, State}};
        false -> Acc
    end;
component_send_packet(Acc) ->
    Acc.

%%% What accounts send

%% The client went on in another process while this one waited for the archive,
%% and was told that the server had not taken this message: it will come again.
user_send_packet_resumed({#message{}, #{mgmt_state := resumed} = State}) ->
    {stop, {drop, State}};
user_send_packet_resumed(Acc) ->
    Acc.

user_send_packet({#message{meta = #{carbon_copy := true}}, _} = Acc) ->
    Acc;
user_send_packet({#message{} = Msg, #{jid := JID} = State}) ->
    case sent(Msg, JID) of
        drop -> {stop, {drop, State}};
        Msg1 -> {Msg1, State}
    end;
user_send_packet(Acc) ->
    Acc.

sent(Msg, #jid{lserver = LServer} = JID) ->
    case mode(LServer, Msg) of
        shadow ->
            Msg1 = shadow(<<"out">>, Msg, JID, xmpp:get_to(Msg)),
            % mod_mam may be gone when a note to self is received: we have it now.
            case is_same(JID, xmpp:get_to(Msg)) of
                true -> xmpp:put_meta(Msg1, mamlog, {sent, none});
                false -> Msg1
            end;
        Mode -> sent(Mode, strip(Msg, LServer), JID)
    end.

sent(Mode, #message{to = To} = Msg, #jid{luser = LUser, lserver = LServer} = JID) ->
    case worth(<<"out">>, Msg) of
        true ->
            Core = (xmpp:set_from_to(Msg, JID, To))#message{meta = #{}},
            Item = {head(<<"out">>, JID, To, contact(LUser, LServer, To), <<>>), xml(Core)},
            case is_later(JID, To) of
                true ->
                    xmpp:put_meta(Msg, mamlog, {out, Item, Core});
                false ->
                    [Outcome] = mod_mamlog_link:append(LServer, [Item]),
                    sent_outcome(Outcome, Mode, Msg, JID)
            end;
        false ->
            Msg
    end.

%% The archive of a local recipient is asked in the same process a little later,
%% and then both can be done with one wait. Only if other devices of the sender
%% are to see the message must it have its id now.
is_later(#jid{luser = U, lserver = S}, #jid{luser = U, lserver = S}) ->
    false;
is_later(#jid{luser = U, lserver = S}, #jid{luser = Other, lserver = S}) when Other /= <<>> ->
    case ejabberd_sm:get_user_present_resources(U, S) of
        [_, _ | _] -> false;
        _ -> true
    end;
is_later(_, _) ->
    false.

sent_outcome(bounce, _Mode, Msg, _JID) ->
    bounce(Msg);
sent_outcome({archived, Id}, Mode, #message{to = To} = Msg, #jid{luser = U, lserver = S} = JID) ->
    Msg1 = notify(Mode, stamped(Msg, JID, Id), U, S, To, send),
    xmpp:put_meta(Msg1, mamlog, {sent, Id});
sent_outcome(_, _Mode, Msg, _JID) ->
    xmpp:put_meta(Msg, mamlog, {sent, none}).

%% What is the sender's business is not for others to see.
user_send_packet_strip({#message{meta = #{mamlog := {sent, _}}} = Msg, #{jid := JID} = State}) ->
    {xmpp:del_meta(strip(Msg, JID#jid.lserver), mam_archived), State};
user_send_packet_strip(Acc) ->
    Acc.

%%% What accounts receive

%% Runs in the sender's process, once for all devices of the recipient, and before
%% the message is stored for one that is offline.
sm_receive_packet(#message{meta = #{carbon_copy := true}} = Msg) ->
    Msg;
sm_receive_packet(#message{meta = #{from_offline := true}} = Msg) ->
    Msg;
sm_receive_packet(#message{type = groupchat, to = #jid{lserver = S}} = Msg) ->
    strip(Msg, S);
sm_receive_packet(#message{meta = #{mamlog := done}} = Msg) ->
    Msg;
sm_receive_packet(#message{meta = #{mamlog := {late, _}}} = Msg) ->
    Msg;
sm_receive_packet(#message{to = #jid{luser = U, lserver = S}} = Msg) when U /= <<>> ->
    Mode = mode(S, Msg),
    case Msg of
        #message{meta = #{mamlog := {out, _, _}}} when Mode == shadow -> received(primary, Msg, true);
        #message{} when Mode == shadow -> Msg;
        #message{} -> received(Mode, Msg, true)
    end;
sm_receive_packet(Acc) ->
    Acc.

%% If it is to be delivered, that is done here, in turn: several senders of one
%% recipient wake up in any order, but who receives their messages must see them in
%% that of the archive.
received(Mode, #message{from = #jid{luser = U, lserver = S}, to = #jid{luser = U, lserver = S} = To,
                        meta = #{mamlog := {sent, Id}}} = Msg, _Deliver) ->
    received_outcome(case Id of none -> skipped; _ -> {archived, Id} end, Mode, Msg, To);
received(Mode, #message{from = From, to = #jid{luser = U, lserver = S} = To, meta = Meta} = Msg0, Deliver) ->
    Msg = strip(xmpp:del_meta(Msg0, mamlog), S),
    {Out, Core} = case Meta of
                      #{mamlog := {out, Item, C}} -> {[Item], C};
                      _ -> {[], none}
                  end,
    case worth(<<"in">>, Msg) andalso is_welcome(Msg) of
        true ->
            Mine = Msg#message{meta = #{}},
            Xml = case Mine of Core -> same; _ -> xml(Mine) end,
            In = {head(direction(From, To), To, From, contact(U, S, From), <<>>), Xml},
            case get(mod_mamlog_component) of
                true ->
                    mod_mamlog_link:append_nowait(S, Out ++ [In], now),
                    Msg;
                _ when Deliver ->
                    Outcomes = mod_mamlog_link:append(S, Out ++ [In], U),
                    try outcomes(Outcomes, Mode, Msg) of
                        drop -> {stop, drop};
                        Msg1 ->
                            ejabberd_sm:route(Msg1),
                            {stop, drop}
                    after
                        mod_mamlog_link:delivered(S, U)
                    end;
                _ ->
                    outcomes(mod_mamlog_link:append(S, Out ++ [In]), Mode, Msg)
            end;
        false when Out /= [] ->
            out_outcome(mod_mamlog_link:append(S, Out), Mode, Msg);
        false ->
            Msg
    end.

direction(#jid{luser = U, lserver = S}, #jid{luser = U, lserver = S}) -> <<"out">>;
direction(_, _) -> <<"in">>.

outcomes([Out, In], Mode, Msg) ->
    case out_outcome([Out], Mode, Msg) of
        drop -> drop;
        Msg1 -> outcomes([In], Mode, Msg1)
    end;
outcomes([In], Mode, Msg) ->
    received_outcome(In, Mode, Msg, Msg#message.to).

out_outcome([bounce], _Mode, Msg) ->
    bounce(Msg);
out_outcome([{archived, _}], Mode, #message{from = #jid{luser = U, lserver = S}, to = To} = Msg) ->
    _ = notify(Mode, Msg, U, S, To, send),
    Msg;
out_outcome(_, _Mode, Msg) ->
    Msg.

received_outcome(bounce, _Mode, Msg, _To) ->
    bounce(Msg);
received_outcome({archived, Id}, beside, Msg, _To) ->
    xmpp:put_meta(Msg, mamlog, {late, Id});
received_outcome(_, beside, Msg, _To) ->
    xmpp:put_meta(Msg, mamlog, {late, none});
received_outcome({archived, Id}, Mode, #message{from = From} = Msg, #jid{luser = U, lserver = S} = To) ->
    Msg1 = notify(Mode, stamped(Msg, To, Id), U, S, From, recv),
    xmpp:put_meta(Msg1, mamlog, done);
received_outcome(_, _Mode, Msg, _To) ->
    xmpp:put_meta(Msg, mamlog, done).

%% Whether the recipient exists, and does not block the sender.
is_welcome(#message{to = #jid{luser = U, lserver = S} = To} = Msg) ->
    ejabberd_auth:user_exists(U, S) andalso
        allow == ejabberd_hooks:run_fold(privacy_check_packet, S, allow, [To, Msg, in]).

%% Runs in the recipient's process.
user_receive_packet({#message{meta = #{mamlog := {late, Id}}} = Msg, #{jid := JID} = State}) ->
    {late(Msg, JID, Id), State};
user_receive_packet({#message{type = Type, meta = #{stanza_id := _} = Meta} = Msg,
                     #{jid := JID} = State} = Acc)
  when Type /= groupchat, not is_map_key(mamlog, Meta), not is_map_key(sm_copy, Meta), not is_map_key(carbon_copy, Meta) ->
    case after_mam(Msg, JID, user_receive_packet) of
        drop -> {stop, {drop, State}};
        Msg -> Acc;
        Msg1 -> {Msg1, State}
    end;
user_receive_packet(Acc) ->
    Acc.

offline_message({Action, #message{meta = #{mamlog := {late, Id}}, to = To} = Msg}) ->
    {Action, late(Msg, To, Id)};
offline_message({Action, #message{type = Type, meta = #{stanza_id := _} = Meta, to = To} = Msg})
  when Type /= groupchat, not is_map_key(mamlog, Meta) ->
    case after_mam(Msg, To, offline_message) of
        drop -> {stop, {drop, Msg}};
        Msg1 -> {Action, Msg1}
    end;
offline_message(Acc) ->
    Acc.

%% mod_mam put its own id onto the message; the one that counts is ours.
late(Msg, JID, Id) ->
    Msg1 = xmpp:put_meta(strip(Msg, JID#jid.lserver), mamlog, done),
    case Id of
        none -> Msg1;
        _ -> stamped(Msg1, JID, Id)
    end.

%% A message that mod_mam was to archive for its recipient. If it did, so do we,
%% from the side. If it was stopped just before it could, the message is ours.
after_mam(#message{from = #jid{luser = U, lserver = S}} = Msg, #jid{luser = U, lserver = S}, _Function) ->
    Msg; % a note to self, which we have as it was sent
after_mam(#message{meta = Meta, from = From} = Msg, #jid{lserver = S} = JID, Function) ->
    case Meta of
        #{mam_archived := true} ->
            shadow(<<"in">>, Msg, JID, From);
        #{from_offline := true} ->
            Msg;
        _ ->
            case has_mam_hook(S, Function) of
                true -> Msg;
                false -> received(primary, Msg, false)
            end
    end.

has_mam_hook(Host, Function) ->
    Hook = case Function of offline_message -> offline_message_hook; _ -> Function end,
    case ets:lookup(hooks, {Hook, Host}) of
        [Row] -> lists:any(fun({_, mod_mam, F}) -> F == Function; (_) -> false end, element(2, Row));
        [] -> false
    end.

%%% Side by side with mod_mam

%% @doc Who archives this message: mamlog, mamlog with mod_mam storing it too, or
%% mod_mam with us looking on. mod_mam's hook has just been there, or it has not.
-spec mode(binary(), message()) -> mode().
mode(Host, #message{meta = #{stanza_id := _}}) ->
    case gen_mod:get_module_opt(Host, ?MODULE, keep_mam_store) of
        true -> beside;
        false -> shadow
    end;
mode(_, _) ->
    primary.

%% What mod_mam archived goes to us too, under the key that the import gives it.
shadow(Dir, #message{meta = #{stanza_id := Id, mam_archived := true}} = Msg, #jid{lserver = S} = JID, Peer) ->
    Core = strip(Msg#message{meta = #{}}, S),
    Head = head(Dir, JID, Peer, contact(JID#jid.luser, S, Peer), <<>>),
    mod_mamlog_link:append_nowait(S, [{Head, xml(Core)}], {mam_key(Id, Msg), Id}),
    Msg;
shadow(_, Msg, _, _) ->
    Msg.

%% @doc The key of a message that mod_mam archived. mod_mam's id is the microsecond in
%% which the sender's process gave it, and an archive may have several messages of
%% one: what its owner sends and gets comes from different processes. So the key has
%% what they differ in as well, of which nothing changes in mod_mam's tables. These may
%% have addresses in lower case and other kinds of white space.
-spec mam_key(integer(), message()) -> binary().
mam_key(Id, #message{from = From, to = To, id = MessageId, body = Bodies}) ->
    Digest = crypto:hash(sha256, [lists:join(0, [address(From), address(To), dense(MessageId)]),
                                  [[0, dense(Text)] || #text{data = Text} <- Bodies]]),
    iolist_to_binary(["mam:", integer_to_binary(Id), $:, base64:encode(binary:part(Digest, 0, 12))]).

address(undefined) -> <<>>;
address(JID) -> jid:encode(jid:tolower(JID)).

dense(Text) -> << <<C>> || <<C>> <= Text, C > $\s >>.

is_same(#jid{luser = U, lserver = S}, #jid{luser = U, lserver = S}) -> true;
is_same(_, _) -> false.

%%% Accounts that go

remove_user(User, Server) ->
    LUser = jid:nodeprep(User),
    LServer = jid:nameprep(Server),
    case mod_mamlog_link:delete(LServer, jid:encode({LUser, LServer, <<>>})) of
        ok -> ok;
        {error, Why} -> ?ERROR_MSG("The archive of ~ts@~ts is not deleted: ~p", [LUser, LServer, Why])
    end.

%%% Messages

%% @doc Removes ids that claim to be of an archive of this domain (XEP-0359
%% section 4).
-spec strip(message(), binary()) -> message().
strip(Msg, LServer) ->
    Els = xmpp:get_els(Msg),
    case lists:any(fun(El) -> is_id_of(El, LServer) end, Els) of
        true -> xmpp:set_els(Msg, [El || El <- Els, not is_id_of(El, LServer)]);
        false -> Msg
    end.

is_id_of(#xmlel{name = Name, attrs = Attrs}, LServer)
  when Name == <<"stanza-id">>; Name == <<"archived">> ->
    case fxml:get_attr_s(<<"xmlns">>, Attrs) of
        NS when NS == ?NS_SID_0; NS == ?NS_MAM_TMP ->
            try (jid:decode(fxml:get_attr_s(<<"by">>, Attrs)))#jid.lserver == LServer
            catch _:_ -> true
            end;
        _ ->
            false
    end;
is_id_of(#stanza_id{by = By}, LServer) -> By#jid.lserver == LServer;
is_id_of(#mam_archived{by = By}, LServer) -> By#jid.lserver == LServer;
is_id_of(_, _) -> false.

%% @doc Whether it makes sense to ask mamlog, whose rules decide. What is left out
%% here is never archived.
-spec worth(binary(), message()) -> boolean().
worth(<<"room">>, #message{type = groupchat} = Msg) ->
    has_content(Msg);
worth(_, #message{type = Type}) when Type == groupchat; Type == headline ->
    false;
worth(Dir, #message{type = error}) ->
    Dir == <<"in">>;
worth(_, Msg) ->
    has_content(Msg).

has_content(#message{body = Body, subject = Subject} = Msg) ->
    content(xmpp:get_els(Msg), Body /= [] orelse Subject /= []).

content([], Found) -> Found;
content([El | Els], Found) ->
    case {xmpp:get_ns(El), xmpp:get_name(El)} of
        {?NS_HINTS, <<"no-store">>} -> false;
        {?NS_HINTS, <<"no-permanent-store">>} -> false;
        {?NS_HINTS, <<"store">>} -> content(Els, true);
        {?NS_HINTS, _} -> content(Els, Found);
        {?NS_MAM_2, <<"result">>} -> false;
        {?NS_CARBONS_2, Name} when Name == <<"sent">>; Name == <<"received">> -> false;
        {?NS_CHATSTATES, _} -> content(Els, Found);
        {?NS_SID_0, _} -> content(Els, Found);
        _ -> content(Els, true)
    end.

%% @doc The attributes of an append, as XML. Extra is what it has besides.
-spec head(binary(), jid(), jid(), boolean(), binary()) -> binary().
head(Dir, #jid{luser = U, lserver = S}, Peer, Contact, Extra) ->
    iolist_to_binary(["dir='", Dir, $', attribute(<<"owner">>, jid:encode({U, S, <<>>})),
                      attribute(<<"peer">>, jid:encode(Peer)),
                      case Contact of true -> " contact='true'"; false -> [] end, Extra]).

-spec attribute(binary(), binary()) -> iodata().
attribute(Name, Value) ->
    [$\s, Name, "='", escape(Value, Value), $'].

%% fxml:crypt/1 builds every text anew, and almost no address needs it.
escape(<<C, _/binary>>, All) when C == $&; C == $<; C == $>; C == $'; C == $" -> fxml:crypt(All);
escape(<<_, Rest/binary>>, All) -> escape(Rest, All);
escape(<<>>, All) -> All.

%% @doc The message in the namespace jabber:client.
-spec xml(message()) -> binary().
xml(Msg) ->
    fxml:element_to_binary(xmpp:encode(Msg)).

%% @doc XEP-0082.
-spec stamp(integer()) -> string().
stamp(Micros) ->
    calendar:system_time_to_rfc3339(Micros, [{unit, microsecond}, {offset, "Z"}]).

%% @doc Whether the peer is in the owner's roster. No subscription may mean either.
-spec contact(binary(), binary(), jid()) -> boolean().
contact(LUser, LServer, Peer) ->
    Bare = jid:remove_resource(Peer),
    Info = ejabberd_hooks:run_fold(roster_get_jid_info, LServer, {none, none, []},
                                   [LUser, LServer, Bare]),
    case element(1, Info) of
        none -> gen_mod:is_loaded(LServer, mod_roster) andalso
                    lists:keymember(jid:tolower(Bare), #roster.jid, mod_roster:get_roster(LUser, LServer));
        _ -> true
    end.

%% @doc The message as its owner sees it. Other modules read mam_archived: what is
%% in the archive need not be bounced or pushed for having been stored offline.
-spec stamped(message(), jid(), binary()) -> message().
stamped(Msg, Owner, Id) ->
    Els = [#stanza_id{by = jid:remove_resource(Owner), id = Id} | xmpp:get_els(Msg)],
    xmpp:put_meta(xmpp:set_els(Msg, Els), mam_archived, true).

%% @doc Gives a message back to its sender. Errors are nobody's to give back.
-spec bounce(message()) -> drop | message().
bounce(#message{type = error} = Msg) ->
    xmpp:put_meta(Msg, mamlog, done);
bounce(#message{lang = Lang} = Msg) ->
    Text = <<"The message can't be archived now">>,
    ejabberd_router:route_error(Msg, xmpp:err_resource_constraint(Text, Lang)),
    drop.

%% Tells those who wait for archived messages, such as mod_push. What they
%% are told by changed with ejabberd 25.
notify(primary, Msg, LUser, LServer, Peer, Dir) ->
    Args = [LUser, LServer, Peer, <<>>, chat, Dir
            | case erlang:function_exported(mod_mam, store_mam_message, 8) of
                  true -> [false];
                  false -> []
              end],
    case ejabberd_hooks:run_fold(store_mam_message, LServer, Msg, Args) of
        #message{} = Msg1 -> Msg1;
        _ -> Msg
    end;
notify(_, Msg, _, _, _, _) ->
    Msg.

%%% Commands

commands() ->
    [#ejabberd_commands{
        name = mamlog_status, tags = [mamlog],
        desc = "Show how each domain's link to mamlog and its spool are",
        module = ?MODULE, function = status,
        args = [],
        result = {domains, {list, {domain, {tuple, [{name, string}, {serves, string}, {state, string},
                                                    {spool, integer}, {spool_bytes, integer},
                                                    {under_way, integer}, {archived, integer},
                                                    {skipped, integer}, {spooled, integer},
                                                    {failed, integer}, {error, string}]}}}}},
     #ejabberd_commands{
        name = mamlog_import, tags = [mamlog],
        desc = "Import the archives that mod_mam keeps of a host and its rooms into mamlog",
        module = ?MODULE, function = import,
        args = [{host, binary}],
        args_example = [<<"example.org">>],
        result = {res, restuple}}].

status() ->
    [begin
         Status = mod_mamlog_link:status(Domain),
         State = case Status of
                     #{up := true, held := true} -> "up, spool held";
                     #{up := true} -> "up";
                     _ -> "down"
                 end,
         N = fun(Key) -> maps:get(Key, Status, 0) end,
         {binary_to_list(Domain), atom_to_list(maps:get(serves, Status, unknown)), State,
          N(spool), N(spool_bytes), N(under_way), N(archived), N(skipped), N(spooled), N(failed),
          case maps:get(error, Status) of <<>> -> "-"; Error -> binary_to_list(Error) end}
     end || Domain <- lists:sort(mod_mamlog_link:domains(all))].

import(Host) ->
    mod_mamlog_import:run(jid:nameprep(Host)).
