%%% @doc The archives of rooms (XEP-0313 section 6.1.2).
%%%
%%% Everything here runs in the room's process, so a room has one order: that of
%%% its archive is that in which its occupants see the messages. The room option
%%% `mam' (muc#roomconfig_mam, muc#roomconfig_enablearchiving) says whether a room
%%% has an archive.
-module(mod_mamlog_room).

-export([muc_filter_message/3, muc_process_iq/2, filter_packet/1, get_room_config/4,
         set_room_option/3, remove_room/3, room_destroyed/3, room_destroyed/4]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("mod_muc_room.hrl").

-define(DISCO, mod_mamlog_disco).

%%% Capture

muc_filter_message(#message{meta = #{mam_ignore := true}} = Msg, _Room, _Nick) ->
    Msg;
muc_filter_message(#message{type = groupchat} = Msg, #state{server_host = Host} = Room, Nick) ->
    case mod_mamlog:mode(Host, Msg) of
        shadow -> shadow(Msg, Room, Nick);
        Mode -> archive(Mode, strip(Msg, Room), Room, Nick)
    end;
muc_filter_message(Acc, _Room, _Nick) ->
    Acc.

archive(Mode, Msg, #state{config = #config{mam = true}, host = Domain, server_host = Host} = Room, Nick) ->
    case mod_mamlog:worth(<<"room">>, Msg) of
        true ->
            [Outcome] = append(Host, Domain, [item(Msg, Room, Nick)]),
            outcome(Outcome, Mode, Msg, Room);
        false ->
            without_id(Msg)
    end;
archive(_Mode, Msg, _Room, _Nick) ->
    Msg.

append(Host, Domain, Items) ->
    case whereis(mod_mamlog_link:name(Domain)) of
        undefined -> _ = mod_mamlog_link:ensure(Host, Domain);
        _ -> ok
    end,
    mod_mamlog_link:append(Domain, Items).

outcome({archived, Id}, _Mode, Msg, #state{jid = JID}) ->
    marked(mod_mamlog:stamped(Msg, JID, Id));
outcome(bounce, _Mode, Msg, _Room) ->
    mod_mamlog:bounce(Msg);
outcome(_, _Mode, Msg, _Room) ->
    without_id(Msg).

%% ejabberd 23.10 and later give every message of a room an id of its own, which would
%% name nothing in the archive: those before 26.03 unless there is one by the room,
%% and filter_packet/1 takes it away again; the others unless these are there.
without_id(Msg) ->
    xmpp:put_meta(marked(Msg), mamlog, without_id).

marked(Msg) ->
    Msg1 = case xmpp:get_meta(Msg, stanza_id, none) of
               none -> xmpp:put_meta(Msg, stanza_id, erlang:system_time(microsecond));
               _ -> Msg
           end,
    xmpp:put_meta(xmpp:put_meta(Msg1, mam_archived, true), mamlog, done).

item(#message{from = From} = Msg, #state{jid = JID, config = Config}, Nick) ->
    Occupant = jid:replace_resource(JID, Nick),
    Sent = (xmpp:set_from(Msg, Occupant))#message{to = undefined, meta = #{}},
    Extra = [mod_mamlog:attribute(<<"sender">>, jid:encode(From)),
             case Config#config.anonymous of
                 false -> " whois='anyone'";
                 true -> []
             end],
    {mod_mamlog:head(<<"room">>, JID, Occupant, false, iolist_to_binary(Extra)), mod_mamlog:xml(Sent)}.

shadow(#message{meta = #{stanza_id := Id, mam_archived := true}} = Msg,
       #state{host = Domain, server_host = Host} = Room, Nick) ->
    _ = mod_mamlog_link:ensure(Host, Domain),
    mod_mamlog_link:append_nowait(Domain, [item(strip(Msg, Room), Room, Nick)],
                                  {mod_mamlog:mam_key(Id, Msg), Id}),
    Msg;
shadow(Msg, _Room, _Nick) ->
    Msg.

%% What only the room may say: its ids, and who is who.
strip(Msg, #state{host = Domain}) ->
    Msg1 = mod_mamlog:strip(Msg, Domain),
    Els = xmpp:get_els(Msg1),
    case lists:any(fun is_of_room/1, Els) of
        true -> xmpp:set_els(Msg1, [El || El <- Els, not is_of_room(El)]);
        false -> Msg1
    end.

is_of_room(El) ->
    case xmpp:get_ns(El) of
        ?NS_MUC_USER -> true;
        ?NS_MUC_ADMIN -> true;
        ?NS_MUC_OWNER -> true;
        _ -> false
    end.

%%% Queries

muc_process_iq(#iq{type = Type, sub_els = [El]} = IQ, #state{server_host = Host} = Room)
  when Type == get; Type == set ->
    case is_archived(Room) andalso {xmpp:get_ns(El), El} of
        {?NS_MAM_2, _} ->
            query(IQ, Room);
        {_, #disco_info{node = <<>>}} when Type == get ->
            %% The answer has to pass filter_packet/1 in this same process.
            put(?DISCO, {IQ#iq.id, IQ#iq.from, mod_mamlog_link:features(Room#state.host), Host}),
            IQ;
        _ ->
            IQ
    end;
muc_process_iq(Acc, _Room) ->
    Acc.

%% Whether mamlog has the archive of this room.
is_archived(#state{config = #config{mam = false}}) ->
    false;
is_archived(#state{server_host = Host}) ->
    not gen_mod:is_loaded(Host, mod_mam) orelse
        gen_mod:get_module_opt(Host, mod_mamlog, keep_mam_store).

query(#iq{from = From} = IQ, #state{host = Domain, jid = JID} = Room) ->
    Affiliation = mod_muc_room:get_affiliation(From, Room),
    Role = mod_muc_room:get_role(From, Room),
    case may_read(Affiliation, Role, Room#state.config) of
        true ->
            Real = case Role == moderator orelse Affiliation == owner orelse Affiliation == admin of
                       true -> <<" real-jids='all'">>;
                       false -> <<" real-jids='own'">>
                   end,
            mod_mamlog_query:relay(IQ, Domain, JID, Real),
            ignore;
        false ->
            xmpp:make_error(IQ, xmpp:err_forbidden(<<"You may not read the archive of this room">>,
                                                   IQ#iq.lang))
    end.

%% Whoever could enter the room (XEP-0313 section 6.2). A password is known to
%% have been given only by those who are in.
may_read(outcast, _Role, _Config) -> false;
may_read(_, Role, _Config) when Role /= none -> true;
may_read(owner, _Role, _Config) -> true;
may_read(_, _Role, #config{password_protected = true}) -> false;
may_read(none, _Role, #config{members_only = true}) -> false;
may_read(_, _Role, _Config) -> true.

%% ejabberd asks nobody about the features of a room, so they are added to the
%% answer on its way out.
filter_packet(#iq{type = result, id = Id, to = To, sub_els = [#disco_info{features = Old} = Info]} = IQ) ->
    case erase(?DISCO) of
        {Id, To, [_ | _] = New, _Host} -> IQ#iq{sub_els = [Info#disco_info{features = Old ++ (New -- Old)}]};
        _ -> IQ
    end;
filter_packet(#message{meta = #{mamlog := without_id}, from = #jid{lserver = Domain}} = Msg) ->
    mod_mamlog:strip(Msg, Domain);
filter_packet(Acc) ->
    Acc.

%%% Configuration

get_room_config(Fields, #state{config = Config}, _From, _Lang) ->
    case lists:keymember(mam, 1, Fields) of
        true -> Fields;
        false -> Fields ++ [{mam, Config#config.mam}]
    end.

set_room_option(_Acc, {mam, Value}, _Lang) ->
    {#config.mam, Value};
set_room_option(Acc, _Property, _Lang) ->
    Acc.

%%% Life and death of a room


remove_room(_Host, Name, Domain) ->
    delete(jid:nodeprep(Name), jid:nameprep(Domain)).

%% A room that was not persistent, or is no longer.
room_destroyed(_Host, Name, Domain) ->
    delete(Name, Domain).

room_destroyed(_Host, Name, Domain, _Persistent) ->
    delete(Name, Domain).

%% Without waiting: what is sent to a room whose process is about to end is lost.
delete(LName, LDomain) ->
    mod_mamlog_link:delete_nowait(LDomain, jid:encode({LName, LDomain, <<>>})).
