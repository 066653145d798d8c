%%% @doc One domain's way to the archive: the process that sends its requests to
%%% the component, in batches, and keeps its spool.
%%%
%%% It alone decides, in the order in which it receives them, what becomes of the
%%% appends of its domain: all that were in its mailbox at one moment go into one
%%% batch, or into the spool with one sync. It never waits for the archive; who
%%% waits is the process that called append/2.
-module(mod_mamlog_link).
-behaviour(gen_server).

%% A process for each domain
-export([start/4, stop/1, ensure/2, domains/1, name/1]).
%% Requests
-export([append/2, append/3, delivered/2, append_nowait/3, import/2, request/3, delete/2, delete_nowait/2]).
%% News
-export([component_connected/2, answer/6, reload/2, hold/2]).
%% Questions
-export([features/1, status/1]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3]).

-export_type([item/0, outcome/0]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("ejabberd_router.hrl").

-define(NS, "urn:mamlog:attach:1").
-define(TICK, 250).
-define(HELLO_EVERY, 10000).
-define(HELLO_AGAIN, 2000).    % while there was no answer
-define(HELLO_TIMEOUT, 5000).
-define(TURN, 1000).           % in which a message is handed over
-define(PAUSE, 1000).          % after the archive said to try again later
%% Batches under way. More would only make them smaller.
-define(BATCHES, 4).
-define(ID_PREFIX, "mamlog-").

%% The attributes of an append but key and ref, as XML; and the message, or `same'
%% for that of the item before.
-type item() :: {binary(), binary() | same}.
-type outcome() :: {archived, binary()} | skipped | spooled | failed | bounce.

%% What one caller wants appended; it is never divided.
-record(append, {
    from :: {pid(), term()} | nobody | spool,
    recipient = nobody :: binary() | nobody, % see append/3
    items :: [{binary(), binary() | same, binary()}], % with their keys
    n :: pos_integer(),
    size :: pos_integer(),
    stamp :: integer(),            % microseconds
    show = false :: boolean(),     % the stamp is sent
    import = false :: boolean(),   % may pass the spool, and gets words
    must = false :: boolean()      % into the spool, whatever on_failure says
}).

-record(batch, {
    id :: pos_integer(),
    appends :: [#append{}],
    n :: pos_integer(),
    at :: integer()
}).

-record(state, {
    host :: binary(),              % the virtual host
    domain :: binary(),
    serves :: accounts | rooms,
    opts :: map(),
    %% The link
    pid :: pid() | undefined,
    monitor :: reference() | undefined,
    writer :: pid(),
    backlog :: counters:counters_ref(), % what the writer has not written yet
    raw = false :: boolean(),      % the writer has the socket, if it may be written into
    direct :: {port(), term()} | undefined, % it may be from here too
    up = false :: boolean(),
    hellos = #{} :: #{pos_integer() => integer()},
    hello_at = 0 :: integer(),
    max_batch = 1 :: pos_integer(),
    max_bytes = 65536 :: pos_integer(),
    window = 1 :: pos_integer(),
    features = [] :: [binary()],
    %% Appends
    waiting = queue:new() :: queue:queue(#append{}),
    waiting_n = 0 :: non_neg_integer(),
    sent = queue:new() :: queue:queue(#batch{}),
    unanswered = 0 :: non_neg_integer(),
    paused_until = 0 :: integer(),
    solo = 0 :: non_neg_integer(), % entries of the spool that go one by one
    barrier :: pos_integer() | undefined, % a delete that is under way
    blocked = [] :: [{get | set, iodata(), {pid(), term()}}], % requests behind it, newest first
    %% Whose messages are being delivered, since when, and the replies behind that
    turns = #{} :: #{binary() => {integer(), queue:queue({{pid(), term()}, [outcome()]})}},
    %% Everything else that waits for an answer
    requests = #{} :: #{pos_integer() => {{pid(), term()}, integer()}},
    %% The spool
    spool :: mod_mamlog_spool:spool() | undefined,
    unsynced = [] :: [#append{} | {delete, binary(), {pid(), term()} | nobody}], % newest first
    hold = false :: boolean(),
    %%
    next_id :: pos_integer(),
    key_prefix :: binary(),
    next_key = 1 :: pos_integer(),
    counts = #{archived => 0, skipped => 0, spooled => 0, failed => 0} :: map(),
    error = <<>> :: binary()
}).

%%% Processes

-spec name(binary()) -> atom().
name(Domain) ->
    gen_mod:get_module_proc(Domain, mod_mamlog).

%% @doc Starts the process of a domain of a virtual host, unless it runs.
-spec start(binary(), binary(), accounts | rooms, gen_mod:opts()) -> ok | {error, term()}.
start(Host, Domain, Serves, Opts) ->
    Spec = {{mod_mamlog, Host, Domain},
            {gen_server, start_link, [{local, name(Domain)}, ?MODULE, [Host, Domain, Serves, Opts], []]},
            permanent, 10000, worker, [?MODULE]},
    case supervisor:start_child(ejabberd_gen_mod_sup, Spec) of
        {ok, _} -> ok;
        {error, {already_started, _}} -> ok;
        {error, already_present} -> ok;
        {error, _} = Error -> Error
    end.

%% @doc Starts the process of a domain with rooms that came into being later.
-spec ensure(binary(), binary()) -> ok | {error, term()}.
ensure(Host, Domain) ->
    start(Host, Domain, rooms, gen_mod:get_module_opts(Host, mod_mamlog)).

%% @doc Stops all processes of a virtual host. What was under way is spooled.
-spec stop(binary()) -> ok.
stop(Host) ->
    lists:foreach(
      fun(Domain) -> stop_domain(Host, Domain) end, domains(Host)).

stop_domain(Host, Domain) ->
    Id = {mod_mamlog, Host, Domain},
    _ = supervisor:terminate_child(ejabberd_gen_mod_sup, Id),
    _ = supervisor:delete_child(ejabberd_gen_mod_sup, Id),
    ok.

%% @doc The domains of a virtual host, or of all, that have a process.
-spec domains(binary() | all) -> [binary()].
domains(Host) ->
    [Domain || {{mod_mamlog, H, Domain}, _, _, _} <- supervisor:which_children(ejabberd_gen_mod_sup),
               Host == all orelse H == Host].

%%% Requests

%% @doc Appends what belongs together, in this order, and returns what became of
%% each. Once the archive does not answer for as long as the option timeout says,
%% nobody waits for it any more.
-spec append(binary(), [item()]) -> [outcome()].
append(Domain, Items) ->
    append(Domain, Items, nobody).

%% @doc Like append/2, but returns in the order of the archive among all callers
%% that name the same recipient: to the next one only when the one before has
%% called delivered/2, or a second later.
-spec append(binary(), [item()], binary() | nobody) -> [outcome()].
append(Domain, Items, Recipient) ->
    try gen_server:call(name(Domain), {append, Items, Recipient}, infinity)
    catch exit:Why ->
        ?ERROR_MSG("No process archives for ~ts: ~p", [Domain, Why]),
        [bounce || _ <- Items]
    end.

%% @doc What append/3 returned for this recipient is in their sessions' mailboxes.
-spec delivered(binary(), binary()) -> ok.
delivered(Domain, Recipient) ->
    gen_server:cast(name(Domain), {delivered, Recipient}).

%% @doc Appends without waiting; what fails is spooled whatever on_failure says.
%% The key and the stamp (microseconds) are those of another archive, if given.
-spec append_nowait(binary(), [item()], {binary(), integer()} | now) -> ok.
append_nowait(Domain, Items, Origin) ->
    gen_server:cast(name(Domain), {append, Items, Origin}).

%% @doc Appends messages of the former archive, each with its key; the archive's
%% word for each is returned. They pass what is held in the spool.
-spec import(binary(), [{binary(), binary(), binary()}]) -> {ok, [binary()]} | {error, term()}.
import(Domain, Messages) ->
    gen_server:call(name(Domain), {import, Messages}, infinity).

%% @doc Asks for something else, and returns what the answer holds. Payload is XML.
-spec request(binary(), get | set, iodata()) ->
          {result, [xmpp_element() | xmlel()]} | {error, stanza_error()} | timeout | down.
request(Domain, Type, Payload) ->
    try gen_server:call(name(Domain), {request, Type, Payload}, infinity)
    catch exit:_ -> down
    end.

%% @doc Deletes an archive, after what was appended to it before. It returns when
%% that is on disk, and survives everything that the spool survives.
-spec delete(binary(), binary()) -> ok | {error, term()}.
delete(Domain, Owner) ->
    try gen_server:call(name(Domain), {delete, Owner}, infinity)
    catch exit:Why -> {error, Why}
    end.

%% @doc Like delete/2, but returns at once.
-spec delete_nowait(binary(), binary()) -> ok.
delete_nowait(Domain, Owner) ->
    gen_server:cast(name(Domain), {delete, Owner}).

%%% News

%% @doc Called in the process of a component that connected.
-spec component_connected(binary(), pid()) -> ok.
component_connected(Component, Pid) ->
    lists:foreach(
      fun(Domain) -> gen_server:cast(name(Domain), {connected, Component, Pid}) end,
      domains(all)).

%% @doc An iq result or error of a component, seen in its process. Returns false
%% if it answers nothing of ours.
-spec answer(binary(), pid(), binary(), result | error, [xmpp_element() | xmlel()], term()) -> boolean().
answer(Domain, Pid, <<?ID_PREFIX, Rest/binary>>, Type, Els, Socket) ->
    try binary:split(Rest, <<"-">>) of
        [Id, Node] ->
            ejabberd_cluster:send({name(Domain), ejabberd_cluster:get_node_by_id(Node)},
                                  {answer, Pid, binary_to_integer(Id), Type, Els, Socket}),
            true
    catch _:_ ->
        false
    end;
answer(_, _, _, _, _, _) ->
    false.

%% @doc New options.
-spec reload(binary(), gen_mod:opts()) -> ok.
reload(Host, Opts) ->
    [gen_server:cast(name(Domain), {reload, Opts}) || Domain <- domains(Host)],
    ok.

%% @doc From now on everything goes to the spool, and nothing leaves it; or the
%% contrary.
-spec hold(binary(), boolean()) -> ok.
hold(Domain, Hold) ->
    gen_server:call(name(Domain), {hold, Hold}, infinity).

%%% Questions

%% @doc What the domain announces now: nothing while the archive can't answer.
-spec features(binary()) -> [binary()].
features(Domain) ->
    try gen_server:call(name(Domain), features, 1000)
    catch exit:_ -> []
    end.

-spec status(binary()) -> map().
status(Domain) ->
    try gen_server:call(name(Domain), status, 10000)
    catch exit:_ -> #{up => false, error => <<"not running">>}
    end.

%%% gen_server

init([Host, Domain, Serves, Opts]) ->
    process_flag(trap_exit, true),
    process_flag(message_queue_data, off_heap),
    {ok, _} = timer:send_interval(?TICK, tick),
    Backlog = counters:new(1, [atomics]),
    S = #state{host = Host, domain = Domain, serves = Serves, opts = Opts, backlog = Backlog,
               writer = spawn_link(fun() -> writer(undefined, Backlog) end),
               next_id = erlang:system_time(millisecond),
               key_prefix = key_prefix()},
    Dir = filename:join(mod_mamlog:spool_dir(Opts), Domain),
    case mod_mamlog_spool:open(Dir, maps:get(spool_max, Opts)) of
        {ok, Spool} ->
            case mod_mamlog_spool:count(Spool) of
                0 -> ok;
                N -> ?INFO_MSG("~B messages of ~ts wait in the spool ~ts", [N, Domain, Dir])
            end,
            {ok, find_link(check_hold(S#state{spool = Spool}))};
        {error, Why} ->
            ?CRITICAL_MSG("Can't open the spool ~ts: ~ts", [Dir, file:format_error(Why)]),
            {stop, {spool, Why}}
    end.

%% Different in every run, so that keys are never used twice.
key_prefix() ->
    <<(binary:encode_hex(crypto:strong_rand_bytes(8)))/binary, "-">>.

handle_call({append, Items, Recipient}, From, S) ->
    collect(accept(From, Recipient, Items, erlang:system_time(microsecond), S));
handle_call({import, _}, _From, #state{up = false} = S) ->
    more({reply, {error, down}, S});
handle_call({import, Messages}, From, S) ->
    A = new_append(From, Messages, 0),
    collect(wait(A#append{import = true}, S));
handle_call({request, _, _}, _From, #state{up = false} = S) ->
    more({reply, down, S});
handle_call({request, Type, Payload}, From, S) ->
    more({noreply, request(Type, Payload, From, pump(sync(S)))});
handle_call({delete, Owner}, From, S) ->
    collect(accept_delete({delete, Owner, From}, S));
handle_call({hold, Hold}, _From, S) ->
    more({reply, ok, set_hold(Hold, S)});
handle_call(features, _From, S) ->
    more({reply, case S of #state{up = true} -> S#state.features; _ -> [] end, S});
handle_call(status, _From, S) ->
    more({reply, report(S), S});
handle_call(Request, _From, S) ->
    ?WARNING_MSG("Unexpected call: ~p", [Request]),
    more({noreply, S}).

handle_cast({append, Items, now}, S) ->
    collect(accept(nobody, nobody, Items, erlang:system_time(microsecond), S));
handle_cast({delivered, Recipient}, S) ->
    more({noreply, next_turn(Recipient, S)});
handle_cast({append, Items, {Key, Stamp}}, S) ->
    A = new_append(nobody, [{Head, Xml, Key} || {Head, Xml} <- Items], Stamp),
    collect(enqueue(A#append{show = true, must = true}, S));
handle_cast({delete, Owner}, S) ->
    collect(accept_delete({delete, Owner, nobody}, S));
handle_cast({connected, Component, Pid}, #state{opts = #{component := Component}} = S) ->
    more({noreply, case S#state.pid of Pid -> S; _ -> connect(Pid, S) end});
handle_cast({connected, _, _}, S) ->
    more({noreply, S});
handle_cast({reload, #{component := Component} = Opts}, #state{opts = #{component := Component}} = S) ->
    more({noreply, check_hold(S#state{opts = Opts})});
handle_cast({reload, Opts}, S) ->
    more({noreply, find_link(check_hold(disconnect(<<"another component">>, S#state{opts = Opts})))});
handle_cast(Msg, S) ->
    ?WARNING_MSG("Unexpected cast: ~p", [Msg]),
    more({noreply, S}).

handle_info(timeout, S) ->
    {noreply, pump(sync(S))};
handle_info({answer, Pid, Id, Type, Els, Socket}, #state{pid = Pid} = S) ->
    collect(answered(Id, Type, Els, take_socket(Socket, S)));
handle_info({answer, _, _, _, _, _}, S) ->
    more({noreply, S});
handle_info(tick, S) ->
    collect(tick(S));
handle_info({'DOWN', Monitor, process, _, _}, #state{monitor = Monitor} = S) ->
    collect(find_link(disconnect(<<"the component is gone">>, S)));
handle_info({'EXIT', Writer, Why}, #state{writer = Writer} = S) ->
    {stop, {writer, Why}, S};
handle_info({'EXIT', _, _}, S) ->
    more({noreply, S});
handle_info({Ref, _}, S) when is_reference(Ref) ->
    more({noreply, S});
handle_info(Info, S) ->
    ?WARNING_MSG("Unexpected info: ~p", [Info]),
    more({noreply, S}).

%% Callers are never left without an answer: what is under way is spooled, or
%% dealt with as on_failure says.
terminate(_Why, S) ->
    S1 = sync(disconnect(<<"stopped">>, S)),
    [gen_server:reply(From, Outcomes)
     || {_, Behind} <- maps:values(S1#state.turns), {From, Outcomes} <- queue:to_list(Behind)],
    mod_mamlog_spool:close(S1#state.spool).

code_change(_OldVsn, S, _Extra) ->
    {ok, S}.

%% Whatever is in the mailbox is taken before anything is sent: a timeout of 0
%% comes when the mailbox is empty.
collect(#state{waiting_n = N, max_batch = Max} = S) when N < Max ->
    {noreply, S, 0};
collect(S) ->
    {noreply, pump(sync(S)), 0}.

more({reply, Reply, S}) -> {reply, Reply, S, 0};
more({noreply, S}) -> {noreply, S, 0}.

now_ms() ->
    erlang:monotonic_time(millisecond).

%%% The link

find_link(#state{pid = undefined, opts = #{component := Component}} = S) ->
    Pids = [Pid || #route{pid = Pid} <- routes(Component), is_pid(Pid)],
    case [Pid || Pid <- Pids, node(Pid) == node()] ++ Pids of
        [Pid | _] -> connect(Pid, S);
        [] -> S
    end;
find_link(S) ->
    S.

routes(Component) ->
    Backend = list_to_existing_atom("ejabberd_router_" ++ atom_to_list(ejabberd_option:router_db_type())),
    case Backend:find_routes(Component) of
        {ok, Routes} -> Routes;
        {error, _} -> []
    end.

connect(Pid, S) ->
    S1 = disconnect(<<"another connection of the component">>, S),
    S1#state.writer ! {component, Pid},
    hello(S1#state{pid = Pid, monitor = erlang:monitor(process, Pid), raw = false, direct = undefined}).

disconnect(_Why, #state{pid = undefined} = S) ->
    fail_all(S#state{up = false});
disconnect(Why, #state{monitor = Monitor} = S) ->
    erlang:demonitor(Monitor, [flush]),
    down(Why, S#state{pid = undefined, monitor = undefined, hellos = #{}}).

%% The link can't be trusted to answer until a hello is answered again.
down(Why, #state{up = true, domain = Domain} = S) ->
    ?WARNING_MSG("The archive of ~ts can't be reached: ~ts", [Domain, Why]),
    fail_all(S#state{up = false, error = Why});
down(_Why, S) ->
    fail_all(S#state{up = false}).

hello(#state{pid = undefined} = S) ->
    S;
hello(#state{spool = Spool} = S) ->
    {Id, S1} = new_id(S),
    Hello = #xmlel{name = <<"hello">>,
                   attrs = [{<<"xmlns">>, <<?NS>>},
                            {<<"versions">>, <<"1">>},
                            {<<"serves">>, atom_to_binary(S#state.serves, utf8)},
                            {<<"software">>, software()},
                            {<<"spool">>, integer_to_binary(mod_mamlog_spool:count(Spool))},
                            {<<"spool-bytes">>, integer_to_binary(mod_mamlog_spool:bytes(Spool))},
                            {<<"error">>, S#state.error}]},
    send_iq(Id, get, fxml:element_to_binary(Hello), S1),
    S1#state{hellos = (S1#state.hellos)#{Id => now_ms()}, hello_at = now_ms()}.

software() ->
    iolist_to_binary(["ejabberd ", ejabberd_option:version()]).

welcome(El, S) ->
    case fxml:get_tag_attr_s(<<"version">>, El) of
        <<"1">> ->
            S#state.up orelse ?INFO_MSG("The archive of ~ts is reached", [S#state.domain]),
            S#state{up = true,
                    max_batch = int_attr(<<"max-batch">>, El, 1, 1024),
                    max_bytes = int_attr(<<"max-bytes">>, El, 4096, 16#1000000),
                    window = int_attr(<<"window">>, El, 1, 65536),
                    features = [fxml:get_tag_attr_s(<<"var">>, F)
                                || #xmlel{name = <<"feature">>} = F <- El#xmlel.children]};
        Version ->
            refused(<<"version ", Version/binary, " of the protocol">>, S)
    end.

int_attr(Name, El, Min, Max) ->
    try binary_to_integer(fxml:get_tag_attr_s(Name, El)) of
        N -> min(max(N, Min), Max)
    catch error:badarg -> Min
    end.

refused(Why, #state{error = Why} = S) ->
    down(Why, S);
refused(Why, #state{domain = Domain} = S) ->
    ?ERROR_MSG("The archive refuses ~ts: ~ts", [Domain, Why]),
    (down(Why, S))#state{error = Why}.

tick(S0) ->
    Now = now_ms(),
    S = expire(Now, late_turns(Now, find_link(check_hold(S0)))),
    Every = case S#state.up of true -> ?HELLO_EVERY; false -> ?HELLO_AGAIN end,
    case Now - S#state.hello_at >= Every of
        true ->
            mod_mamlog:refresh(S#state.host),
            hello(S);
        false ->
            S
    end.

%% Messages of a host whose former archive is to be imported first are held.
check_hold(#state{host = Host, opts = Opts} = S) ->
    set_hold(mod_mamlog_import:holds(Host, Opts), S).

set_hold(true, #state{hold = false, waiting = Waiting} = S) ->
    lists:foldl(fun fail/2, S#state{hold = true, waiting = queue:new(), waiting_n = 0},
                queue:to_list(Waiting));
set_hold(Hold, S) ->
    S#state{hold = Hold}.

expire(Now, #state{opts = #{timeout := Timeout}, requests = Requests} = S) ->
    {Late, Rest} = lists:partition(fun({_, {_, At}}) -> Now - At >= Timeout end,
                                   maps:to_list(Requests)),
    lists:foreach(fun({_, {From, _}}) -> gen_server:reply(From, timeout) end, Late),
    S1 = S#state{requests = maps:from_list(Rest)},
    Hung = lists:any(fun(At) -> Now - At >= ?HELLO_TIMEOUT end, maps:values(S1#state.hellos)),
    case queue:peek(S1#state.sent) of
        _ when Hung, S1#state.up ->
            down(<<"it doesn't answer a hello">>, forget_hellos(Now, S1));
        {value, #batch{at = At}} when Now - At >= Timeout ->
            down(<<"it doesn't answer">>, S1);
        _ when Hung ->
            forget_hellos(Now, S1);
        _ ->
            S1
    end.

forget_hellos(Now, #state{hellos = Hellos} = S) ->
    %% An answer that comes very late still shows that the link works.
    S#state{hellos = maps:filter(fun(_, At) -> Now - At < 12 * ?HELLO_TIMEOUT end,
                                 maps:map(fun(_, At) -> At end, Hellos))}.

%% A request behind a delete is not to see what that deletes.
request(Type, Payload, From, #state{barrier = undefined} = S) ->
    {Id, S1} = new_id(S),
    send_iq(Id, Type, Payload, S1),
    S1#state{requests = (S1#state.requests)#{Id => {From, now_ms()}}};
request(_, _, From, #state{up = false} = S) ->
    gen_server:reply(From, down),
    S;
request(Type, Payload, From, #state{blocked = Blocked} = S) ->
    S#state{blocked = [{Type, Payload, From} | Blocked]}.

new_id(#state{next_id = Id} = S) ->
    {Id, S#state{next_id = Id + 1}}.

send_iq(Id, Type, Payload, #state{domain = Domain, opts = #{component := Component}} = S) ->
    send(["<iq type='", atom_to_binary(Type, utf8), "' id='" ?ID_PREFIX,
          integer_to_binary(Id), $-, ejabberd_cluster:node_id(),
          "' from='", Domain, "' to='", Component, "'>", Payload, "</iq>"], S).

%% A component's stream is written by its own process, element by element. If it
%% is plain TCP, whole stanzas may as well be written into it from here, which
%% saves building, copying and encoding a tree for each. While nothing is queued in
%% the socket it takes what comes at once. But the archive may hang and its buffers be
%% full: then a process of its own writes, which may block.
send(Xml, #state{writer = Writer, backlog = Backlog, direct = Direct}) ->
    case Direct /= undefined andalso counters:get(Backlog, 1) == 0
        andalso erlang:port_info(element(1, Direct), queue_size) of
        {queue_size, 0} ->
            write({socket, element(2, Direct)}, Xml);
        _ ->
            counters:add(Backlog, 1, 1),
            Writer ! {send, Xml}
    end.

take_socket(Socket, #state{raw = false, pid = Pid, writer = Writer} = S) when node(Pid) == node() ->
    case xmpp_socket:get_transport(Socket) of
        tcp ->
            Writer ! {socket, Socket},
            Direct = case erlang:process_info(Pid, links) of
                         {links, Links} -> [{P, Socket} || P <- Links, is_port(P)];
                         undefined -> []
                     end,
            S#state{raw = true, direct = case Direct of [One] -> One; _ -> undefined end};
        _ ->
            S#state{raw = true}
    end;
take_socket(_, S) ->
    S.

writer(To, Backlog) ->
    receive
        {send, Xml} ->
            write(To, Xml),
            counters:sub(Backlog, 1, 1),
            writer(To, Backlog);
        {component, Pid} ->
            writer({component, Pid}, Backlog);
        {socket, Socket} ->
            writer({socket, Socket}, Backlog)
    end.

write({socket, Socket}, Xml) ->
    %% If it fails, the component's process ends and everybody hears of it.
    _ = xmpp_socket:send(Socket, Xml),
    ok;
write({component, Pid}, Xml) ->
    case fxml_stream:parse_element(iolist_to_binary(Xml)) of
        #xmlel{} = El -> ejabberd_service:send(Pid, El);
        {error, Why} -> ?ERROR_MSG("A request is no XML: ~p", [Why])
    end;
write(undefined, _) ->
    ok.

%%% What is to be appended

%% Through the spool: so it is done, and at the right place. What comes next needs
%% not wait for the disk then.
accept_delete(Delete, #state{unsynced = Unsynced} = S) ->
    S1 = S#state{unsynced = [Delete | Unsynced]},
    case S1#state.up of
        true -> sync(S1);
        false -> S1
    end.

accept(From, Recipient, Items, Stamp, #state{key_prefix = Prefix, next_key = Next} = S) ->
    {Keyed, Next1} =
        lists:mapfoldl(
          fun({Head, Xml}, N) ->
                  {{Head, Xml, <<Prefix/binary, (integer_to_binary(N))/binary>>}, N + 1}
          end, Next, Items),
    A = new_append(From, Keyed, Stamp),
    enqueue(A#append{must = From == nobody, recipient = Recipient}, S#state{next_key = Next1}).

new_append(From, Keyed, Stamp) ->
    #append{from = From, items = Keyed, n = length(Keyed), size = size_of(Keyed), stamp = Stamp}.

size_of(Keyed) ->
    lists:foldl(fun({Head, same, _}, Sum) -> Sum + byte_size(Head) + 128;
                   ({Head, Xml, _}, Sum) -> Sum + byte_size(Head) + byte_size(Xml) + 128
                end, 0, Keyed).

%% Live messages wait behind those of the spool if that will soon be empty, and
%% go to its end if not.
enqueue(A, #state{up = true, hold = false, unsynced = [], window = Window, spool = Spool} = S) ->
    case mod_mamlog_spool:count(Spool) =< Window andalso S#state.paused_until == 0 of
        true -> wait(A, S);
        false -> fail(A, S)
    end;
enqueue(A, S) ->
    fail(A, S).

wait(A, #state{waiting = Waiting, waiting_n = N} = S) ->
    S#state{waiting = queue:in(A, Waiting), waiting_n = N + 1}.

%% What becomes of an append that the archive doesn't take now.
fail(#append{from = spool}, S) ->
    S;
fail(#append{import = true, from = From}, S) ->
    gen_server:reply(From, {error, down}),
    S;
fail(#append{must = Must} = A, #state{opts = #{on_failure := OnFailure}} = S) ->
    if Must; OnFailure == spool; S#state.hold ->
            S#state{unsynced = [A | S#state.unsynced]};
       OnFailure == pass ->
            reply_all(A, failed, count(failed, A#append.n, S));
       OnFailure == bounce ->
            reply_all(A, bounce, count(failed, A#append.n, S))
    end.

reply_all(#append{n = N} = A, Outcome, S) ->
    reply(A, lists:duplicate(N, Outcome), S).

reply(#append{from = nobody}, _, S) ->
    S;
reply(#append{from = From, recipient = nobody}, Outcomes, S) ->
    gen_server:reply(From, Outcomes),
    S;
reply(#append{from = From, recipient = R}, Outcomes, #state{turns = Turns} = S) ->
    case Turns of
        #{R := {Since, Behind}} ->
            S#state{turns = Turns#{R := {Since, queue:in({From, Outcomes}, Behind)}}};
        _ ->
            gen_server:reply(From, Outcomes),
            S#state{turns = Turns#{R => {now_ms(), queue:new()}}}
    end.

next_turn(R, #state{turns = Turns} = S) ->
    case Turns of
        #{R := {_, Behind}} ->
            case queue:out(Behind) of
                {{value, {From, Outcomes}}, Rest} ->
                    gen_server:reply(From, Outcomes),
                    S#state{turns = Turns#{R := {now_ms(), Rest}}};
                {empty, _} ->
                    S#state{turns = maps:remove(R, Turns)}
            end;
        _ ->
            S
    end.

%% Of those who were to deliver and did not, because their process ended.
late_turns(Now, #state{turns = Turns} = S) ->
    lists:foldl(fun next_turn/2, S, [R || {R, {Since, _}} <- maps:to_list(Turns), Now - Since > ?TURN]).

count(What, N, #state{counts = Counts} = S) ->
    S#state{counts = maps:update_with(What, fun(M) -> M + N end, Counts)}.

%% Everything that is under way, and what waits behind it, in this order.
fail_all(#state{sent = Sent, waiting = Waiting, requests = Requests, spool = Spool} = S) ->
    lists:foreach(fun(From) -> gen_server:reply(From, down) end,
                  [From || {From, _} <- maps:values(Requests)] ++ [From || {_, _, From} <- S#state.blocked]),
    Appends = lists:append([B#batch.appends || B <- queue:to_list(Sent)]) ++ queue:to_list(Waiting),
    S1 = S#state{sent = queue:new(), waiting = queue:new(), waiting_n = 0, unanswered = 0,
                 requests = #{}, barrier = undefined, blocked = [], spool = mod_mamlog_spool:rewind(Spool),
                 paused_until = 0, unsynced = []},
    S2 = lists:foldl(fun fail/2, S1, Appends),
    %% What was on its way to the spool came after all that.
    S2#state{unsynced = S#state.unsynced ++ S2#state.unsynced}.

%% One sync for all that wait for it.
sync(#state{unsynced = []} = S) ->
    S;
sync(#state{unsynced = Unsynced, spool = Spool} = S) ->
    Group = lists:reverse(Unsynced),
    S1 = S#state{unsynced = []},
    Entries = lists:append([entries(A) || A <- Group]),
    Deletes = [D || {delete, _, _} = D <- Group],
    case mod_mamlog_spool:append(Spool, Entries) of
        {ok, Spool1} ->
            spooled(Group, S1#state{spool = Spool1});
        {error, full, Spool1} when Deletes == [] ->
            not_spooled(Group, <<"the spool is full">>, S1#state{spool = Spool1});
        {error, full, Spool1} ->
            case mod_mamlog_spool:append_always(Spool1, lists:append([entries(D) || D <- Deletes])) of
                {ok, Spool2} ->
                    not_spooled(Group -- Deletes, <<"the spool is full">>,
                                spooled(Deletes, S1#state{spool = Spool2}));
                {error, Why, Spool2} ->
                    not_spooled(Group, disk_error(Why), S1#state{spool = Spool2})
            end;
        {error, Why, Spool1} ->
            not_spooled(Group, disk_error(Why), S1#state{spool = Spool1})
    end.

entries({delete, Owner, _From}) ->
    [{delete, Owner}];
entries(#append{items = Items, stamp = Stamp}) ->
    {Entries, _} = lists:mapfoldl(
                     fun({Head, same, Key}, Xml) -> {{append, Head, Key, Stamp, Xml}, Xml};
                        ({Head, Xml, Key}, _) -> {{append, Head, Key, Stamp, Xml}, Xml}
                     end, <<>>, Items),
    Entries.

disk_error(Why) ->
    iolist_to_binary(["the spool can't be written: ", io_lib:format("~p", [Why])]).

spooled(Group, S) ->
    lists:foldl(
      fun({delete, _, nobody}, Acc) -> Acc;
         ({delete, _, From}, Acc) -> gen_server:reply(From, ok), Acc;
         (A, Acc) -> reply_all(A, spooled, count(spooled, A#append.n, Acc))
      end, S, Group).

%% It is neither archived nor on disk. Only the sender can still keep it.
not_spooled(Group, Why, S) ->
    S#state.error == Why orelse ?ERROR_MSG("Messages of ~ts are refused: ~ts", [S#state.domain, Why]),
    lists:foldl(
      fun({delete, Owner, nobody}, Acc) ->
              ?ERROR_MSG("The archive of ~ts is not deleted: ~ts", [Owner, Why]),
              Acc;
         ({delete, _, From}, Acc) -> gen_server:reply(From, {error, Why}), Acc;
         (A, Acc) -> reply_all(A, bounce, count(failed, A#append.n, Acc))
      end, S#state{error = Why}, Group).

%%% Sending

%% Sends what there is room for: first from the spool, then what came live.
pump(#state{up = false} = S) ->
    S;
pump(#state{barrier = Id} = S) when is_integer(Id) ->
    S;
pump(S) ->
    case queue:len(S#state.sent) < ?BATCHES andalso S#state.unanswered < S#state.window of
        true -> next_batch(S);
        false -> S
    end.

next_batch(S) ->
    case from_spool(S) of
        {[], barrier, S1} -> S1;
        {[], blocked, S1} -> imports_only(S1);
        {[], empty, S1} -> from_waiting(S1);
        {Appends, _, S1} -> pump(send_batch(Appends, S1))
    end.

from_spool(#state{hold = true} = S) ->
    {[], blocked, S};
from_spool(#state{paused_until = 0} = S) ->
    {MaxN, Solo} = case S#state.solo of 0 -> {S#state.max_batch, 0}; N -> {1, N - 1} end,
    read_spool(min(MaxN, S#state.window - S#state.unanswered), S#state.max_bytes - 1024, [],
               S#state{solo = Solo});
from_spool(#state{paused_until = Until} = S) ->
    case now_ms() >= Until of
        true -> from_spool(S#state{paused_until = 0});
        false -> {[], blocked, S}
    end.

read_spool(0, _, Acc, S) ->
    {lists:reverse(Acc), more, S};
read_spool(N, Room, Acc, #state{spool = Spool} = S) ->
    case mod_mamlog_spool:peek(Spool) of
        {empty, Spool1} ->
            {lists:reverse(Acc), empty, S#state{spool = Spool1}};
        {{append, Head, Key, Stamp, Xml}, _, Spool1} ->
            A = (new_append(spool, [{Head, Xml, Key}], Stamp))#append{show = true},
            case A#append.size > Room andalso Acc /= [] of
                true -> {lists:reverse(Acc), more, S#state{spool = Spool1}};
                false -> read_spool(N - 1, Room - A#append.size, [A | Acc],
                                    S#state{spool = mod_mamlog_spool:take(Spool1)})
            end;
        {{delete, Owner}, _, Spool1} when Acc == [] ->
            {[], barrier, send_delete(Owner, S#state{spool = mod_mamlog_spool:take(Spool1)})};
        {{delete, _}, _, Spool1} ->
            {lists:reverse(Acc), more, S#state{spool = Spool1}}
    end.

from_waiting(S) ->
    {Appends, Waiting} = take(S#state.max_batch, S#state.max_bytes - 1024, [], S#state.waiting),
    case length(Appends) of
        0 -> S;
        N -> pump(send_batch(Appends, S#state{waiting = Waiting, waiting_n = S#state.waiting_n - N}))
    end.

%% Only these may pass what is held.
imports_only(#state{waiting = Waiting} = S) ->
    case queue:peek(Waiting) of
        {value, #append{import = true}} -> from_waiting(S);
        _ -> S
    end.

take(Room, Bytes, Acc, Waiting) ->
    case queue:out(Waiting) of
        {{value, #append{n = N, size = Size} = A}, Rest}
          when Acc == []; N =< Room, Size =< Bytes ->
            take(Room - N, Bytes - Size, [A | Acc], Rest);
        _ ->
            {lists:reverse(Acc), Waiting}
    end.

send_batch(Appends, S) ->
    {Id, S1} = new_id(S),
    {Xml, {_, N}} = lists:mapfoldl(fun append_xml/2, {0, 0}, Appends),
    send_iq(Id, set, ["<batch xmlns='" ?NS "'>", Xml, "</batch>"], S1),
    Batch = #batch{id = Id, appends = Appends, n = N, at = now_ms()},
    S1#state{sent = queue:in(Batch, S1#state.sent), unanswered = S1#state.unanswered + N}.

append_xml(#append{items = Items, stamp = Stamp, show = Show}, Acc) ->
    Extra = case Show of
                true -> [" stamp='", mod_mamlog:stamp(Stamp), $'];
                false -> []
            end,
    lists:mapfoldl(
      fun({Head, same, Key}, {Ref, N}) ->
              {["<append ", Head, " key='", Key, "' ref='", integer_to_binary(Ref), $', Extra, "/>"],
               {Ref, N + 1}};
         ({Head, Xml, Key}, {_, N}) ->
              {["<append ", Head, " key='", Key, $', Extra, $>, Xml, "</append>"], {N + 1, N + 1}}
      end, Acc, Items).

send_delete(Owner, S) ->
    {Id, S1} = new_id(S),
    send_iq(Id, set, ["<delete xmlns='" ?NS "' owner='", fxml:crypt(Owner), "'/>"], S1),
    Batch = #batch{id = Id, appends = [], n = 0, at = now_ms()},
    S1#state{barrier = Id, sent = queue:in(Batch, S1#state.sent)}.

%%% Answers

answered(Id, Type, Els, #state{requests = Requests, hellos = Hellos} = S) ->
    case queue:peek(S#state.sent) of
        {value, #batch{id = Id} = Batch} ->
            batch_answered(Batch, Type, Els,
                           S#state{sent = queue:drop(S#state.sent),
                                   unanswered = S#state.unanswered - Batch#batch.n});
        _ when is_map_key(Id, Requests) ->
            {{From, _}, Rest} = maps:take(Id, Requests),
            gen_server:reply(From, case Type of
                                       result -> {result, Els};
                                       error -> {error, condition(Els)}
                                   end),
            S#state{requests = Rest};
        _ when is_map_key(Id, Hellos) ->
            S1 = S#state{hellos = maps:filter(fun(Other, _) -> Other > Id end, Hellos)},
            case {Type, Els} of
                {result, [#xmlel{name = <<"welcome">>} = El]} -> welcome(El, S1);
                _ -> refused(reason(condition(Els)), S1)
            end;
        _ ->
            S % too late
    end.

batch_answered(#batch{id = Id}, Type, Els, #state{barrier = Id, spool = Spool} = S) ->
    case Type of
        result -> ok;
        error -> ?ERROR_MSG("An archive of ~ts could not be deleted: ~ts",
                            [S#state.domain, reason(condition(Els))])
    end,
    S1 = S#state{barrier = undefined, blocked = [], spool = mod_mamlog_spool:ack(Spool, 1)},
    lists:foldr(fun({T, Payload, From}, Acc) -> request(T, Payload, From, Acc) end, S1, S#state.blocked);
batch_answered(#batch{appends = Appends, n = N} = Batch, result, [#xmlel{} = El], S) ->
    Words = binary:split(fxml:get_tag_cdata(El), <<" ">>, [global, trim_all]),
    case length(Words) of
        N -> settle(Appends, Words, 0, S);
        _ -> batch_refused(Batch, <<"the answer has not as many words as the batch appends">>, S)
    end;
batch_answered(Batch, _, Els, S) ->
    batch_refused(Batch, reason(condition(Els)), S).

settle([#append{from = spool, items = [{_, _, _}]} | Appends], [Word | Words], Acks, S) ->
    case outcome(Word) of
        later ->
            %% From here on all again, a little later. Keys tell what was archived.
            pause(Word, ack(Acks, S));
        {failed, Why} ->
            ?ERROR_MSG("A message of ~ts in the spool is refused and lost: ~ts", [S#state.domain, Why]),
            settle(Appends, Words, Acks + 1, count(failed, 1, S#state{error = Why}));
        Outcome ->
            settle(Appends, Words, Acks + 1, tally(Outcome, S))
    end;
settle([#append{n = N, from = From} = A | Appends], Words, Acks, S) ->
    {Mine, Rest} = lists:split(N, Words),
    Outcomes = [outcome(W) || W <- Mine],
    S1 = case lists:member(later, Outcomes) of
             true ->
                 fail(A, S#state{error = <<"the archive can't take messages now">>});
             false when A#append.import ->
                 gen_server:reply(From, {ok, Mine}),
                 S;
             false ->
                 S2 = lists:foldl(fun tally/2, S, Outcomes),
                 reply(A, [final(O, S2) || O <- Outcomes], S2)
         end,
    settle(Appends, Rest, Acks, S1);
settle([], [], Acks, S) ->
    ack(Acks, S).

ack(0, S) ->
    S;
ack(N, #state{spool = Spool} = S) ->
    S#state{spool = mod_mamlog_spool:ack(Spool, N)}.

outcome(<<"-">>) -> skipped;
outcome(<<"!resource-constraint">>) -> later;
outcome(<<"!internal-server-error">>) -> later;
outcome(<<"!", Why/binary>>) -> {failed, Why};
outcome(Id) -> {archived, Id}.

tally({archived, _}, S) -> count(archived, 1, S);
tally(skipped, S) -> count(skipped, 1, S);
tally({failed, Why}, S) ->
    ?ERROR_MSG("The archive refuses a message of ~ts: ~ts", [S#state.domain, Why]),
    count(failed, 1, S#state{error = Why}).

%% What will fail again is delivered without the archive, unless its sender is to
%% be told.
final({failed, _}, #state{opts = #{on_failure := bounce}}) -> bounce;
final({failed, _}, _) -> failed;
final(Outcome, _) -> Outcome.

pause(Why, #state{spool = Spool} = S) ->
    S1 = fail_all(S#state{spool = Spool}),
    S1#state{paused_until = now_ms() + ?PAUSE, error = Why}.

%% Nothing of the batch was archived.
batch_refused(#batch{appends = Appends}, Why, S) ->
    ?ERROR_MSG("The archive refuses a batch of ~ts: ~ts", [S#state.domain, Why]),
    case Appends of
        [#append{from = spool}] ->
            S1 = ack(1, S),
            count(failed, 1, S1#state{error = Why});
        [#append{from = spool} | _] ->
            S1 = pause(Why, S),
            S1#state{solo = length(Appends)};
        _ ->
            lists:foldl(fun fail/2, S#state{error = Why}, Appends)
    end.

condition(Els) ->
    case [E || #stanza_error{} = E <- Els] of
        [E | _] ->
            E;
        [] ->
            Errors = [E || #xmlel{name = <<"error">>} = E <- Els],
            try xmpp:decode(hd(Errors), ?NS_CLIENT, [ignore_els])
            catch _:_ -> xmpp:err_internal_server_error()
            end
    end.

reason(#stanza_error{reason = Reason, text = Text}) ->
    Name = case Reason of
               _ when is_atom(Reason) -> atom_to_binary(Reason, utf8);
               #gone{} -> <<"gone">>;
               #redirect{} -> <<"redirect">>
           end,
    case xmpp:get_text(Text) of
        <<>> -> Name;
        T -> <<Name/binary, ", ", T/binary>>
    end.

%%% Status

report(#state{spool = Spool, counts = Counts} = S) ->
    Counts#{up => S#state.up,
            serves => S#state.serves,
            held => S#state.hold,
            under_way => S#state.unanswered,
            waiting => S#state.waiting_n,
            spool => mod_mamlog_spool:count(Spool),
            spool_bytes => mod_mamlog_spool:bytes(Spool),
            error => S#state.error}.
