package integrations

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mamlog/integrations/peers"
)

// TestMigration: from mod_mam to mamlog and back as the modules' READMEs say,
// while people go on talking. Each archive has everything that was ever said, once
// and in order, before, in between and afterwards.
func TestMigration(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		stores := map[string][]peers.Archive{"prosody": {peers.Internal, peers.SQLite}, "ejabberd": {peers.Mnesia, peers.SQLite}}
		for _, store := range stores[k.name] {
			t.Run(string(store), func(t *testing.T) {
				t.Parallel()
				t.Run("there", func(t *testing.T) {
					t.Parallel()
					newMigration(t, k, store, false).there()
				})
				t.Run("and back", func(t *testing.T) {
					t.Parallel()
					newMigration(t, k, store, true).andBack()
				})
			})
		}
	})
}

// migration is a site in which people talk while its archive changes.
type migration struct {
	*exchange
	commands
}

// commands are what an operator does, in the words of the READMEs.
type commands interface {
	load(context.Context) error   // the module, beside mod_mam
	bring(context.Context) error  // import what mod_mam has
	unload(context.Context) error // mod_mam, so that mamlog is the archive
	keep(context.Context) error   // mamlog is the archive, and mod_mam's store gets everything too
	back(context.Context) error   // mod_mam is the archive, as it was
}

// newMigration begins with mod_mam on a store; keep: it is to get everything later too.
func newMigration(t *testing.T, k kind, store peers.Archive, keep bool) *migration {
	t.Helper()
	o := siteOptions{before: store}
	if k.name == "prosody" {
		o.server.Modules = []string{"admin_shell"}
		o.server.Global = fmt.Sprintf("mamlog_keep_mam_store = %t\n", keep)
	}
	s := ownSite(t, k, o)
	m := &migration{exchange: &exchange{t: t, site: s, streams: append(streams, stream{"note", "juliet", "juliet"}), room: "storm@" + s.RoomsHost}}
	if k.name == "prosody" {
		m.commands = prosodyCommands{s}
	} else {
		m.commands = ejabberdCommands{s, t}
	}
	m.begin()
	m.doing = "before"
	m.arrived(m.say(40))
	return m
}

// during does something while messages are under way all the time.
func (m *migration) during(what string, do func(context.Context) error) {
	m.t.Helper()
	m.doing = what
	done := make(chan error, 1)
	go func() { done <- do(m.t.Context()) }()
	for range 100 { // more only takes longer to read back
		m.arrived(m.say(1))
		select {
		case err := <-done:
			m.must(err)
			m.arrived(m.say(3))
			return
		default:
		}
	}
	m.must(<-done)
	m.arrived(m.say(3))
}

// there: mamlog takes over, with everything.
func (m *migration) there() {
	e, timed := m.commands.(ejabberdCommands) // mod_mam's ids are times
	if timed {
		m.must(m.site.Register(m.t.Context(), "tybalt"))
		m.must(e.coincide(m.t.Context(), "imported", 20))
	}
	m.during("loading the module", m.load)
	if timed {
		m.must(e.coincide(m.t.Context(), "both", 10))
		m.must(e.coincide(m.t.Context(), "spooled", 0))
	}
	m.during("import", m.bring)
	m.during("unloading mod_mam", m.unload)
	m.drained()
	m.doing = "there"
	m.complete()
	if timed {
		m.coincided("imported", "both", "spooled")
	}
}

// coincided checks that tybalt's archive has all messages that mod_mam gave the same id.
func (m *migration) coincided(names ...string) {
	m.t.Helper()
	reader := m.site.login(m.t, "tybalt", "reader")
	defer reader.Close()
	var have, want []string
	for _, r := range archiveOf(m.t, reader, "") {
		have = append(have, r.body)
	}
	for _, n := range names {
		want = append(want, n+" in", n+" out", n+" out too")
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		m.t.Errorf("%s: of messages with the same id the archive has %q, want %q", m.doing, have, want)
	}
}

// andBack: mamlog takes over, and hands back.
func (m *migration) andBack() {
	m.during("loading the module", m.load)
	m.during("import", m.bring)
	m.during("keeping the old store", m.keep)
	m.drained()
	m.doing = "there"
	m.complete()
	m.during("going back", m.back)
	m.doing, m.twice = "back", "note"     // mod_mam keeps notes to oneself twice
	m.renamed = m.site.name == "ejabberd" // whose mod_mam makes its ids itself
	m.complete()
}

// complete checks that the archives have what was said, and nothing else.
func (m *migration) complete() {
	m.t.Helper()
	for owner, archive := range m.check() {
		want := 0
		for _, s := range m.streams {
			room := s.to == ""
			if room && owner == "hall" || !room && (s.from == owner || s.to == owner) {
				want += m.sent[s.name]
			}
		}
		if len(archive) != want {
			m.t.Errorf("%s: the archive of %s has %d messages, want %d", m.doing, owner, len(archive), want)
		}
	}
}

type prosodyCommands struct{ *site }

func (p prosodyCommands) shell(ctx context.Context, commands ...string) error {
	for _, c := range commands {
		out, err := p.Ctl(ctx, "shell", c)
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", c, err, out)
		}
		if strings.Contains(out, "Problem") || strings.Contains(out, "Fatal") || strings.Contains(out, "error") {
			return fmt.Errorf("%s: %s", c, out)
		}
	}
	return nil
}

func (p prosodyCommands) load(ctx context.Context) error {
	return p.shell(ctx, fmt.Sprintf("module:load('mamlog', '%s')", p.Host), fmt.Sprintf("module:load('mamlog', '%s')", p.RoomsHost))
}

func (p prosodyCommands) bring(ctx context.Context) error {
	return p.shell(ctx, fmt.Sprintf("mamlog:import('%s')", p.Host), fmt.Sprintf("mamlog:import('%s')", p.RoomsHost))
}

func (p prosodyCommands) unload(ctx context.Context) error {
	return p.shell(ctx, fmt.Sprintf("module:unload('mam', '%s')", p.Host), fmt.Sprintf("module:unload('muc_mam', '%s')", p.RoomsHost))
}

// keep: the option was there from the beginning, and counts from now on.
func (p prosodyCommands) keep(ctx context.Context) error { return p.unload(ctx) }

func (p prosodyCommands) back(ctx context.Context) error {
	return p.shell(ctx,
		fmt.Sprintf("module:load('mam', '%s')", p.Host), fmt.Sprintf("module:load('muc_mam', '%s')", p.RoomsHost),
		fmt.Sprintf("module:unload('mamlog', '%s')", p.Host), fmt.Sprintf("module:unload('mamlog', '%s')", p.RoomsHost))
}

type ejabberdCommands struct {
	*site
	t *testing.T
}

// configure changes the configuration and reloads it.
func (e ejabberdCommands) configure(ctx context.Context, change func(string) string) error {
	file := filepath.Join(e.Dir, "ejabberd.yml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	changed := change(string(text))
	if changed == string(text) {
		return errors.New("the configuration has not changed")
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		return err
	}
	_, err = e.Ctl(ctx, "reload_config")
	return err
}

func (e ejabberdCommands) load(ctx context.Context) error {
	return e.configure(ctx, func(c string) string {
		return strings.Replace(c, "  mod_mam:\n", "  mod_mamlog:\n    component: \""+e.ArchiveHost+"\"\n  mod_mam:\n", 1)
	})
}

func (e ejabberdCommands) bring(ctx context.Context) error {
	out, err := e.Ctl(ctx, "mamlog_import", e.Host)
	e.t.Logf("%s", out)
	return err
}

// coincide has mod_mam archive three messages of tybalt's in the same microsecond,
// some seconds ago, and mod_mamlog look on if it is there. In life it takes two
// processes: one that sends, and one that brings what somebody else sent. The import
// has what is older than the module's start, or 5 seconds.
func (e ejabberdCommands) coincide(ctx context.Context, name string, ago int) error {
	_, err := e.Eval(ctx, fmt.Sprintf(`Id = erlang:system_time(microsecond) - %[1]d * 1000000,
		Call = fun(M, F, A) -> case rpc:call(Node, M, F, A) of {badrpc, Why} -> error(Why); R -> R end end,
		Loaded = Call(gen_mod, is_loaded, [<<%[2]q>>, mod_mamlog]),
		[begin
			El = {xmlel, <<"message">>, [{<<"from">>, From}, {<<"to">>, To}, {<<"type">>, <<"chat">>}],
			      [{xmlel, <<"body">>, [], [{xmlcdata, <<%[3]q, Body/binary>>}]}]},
			Msg = Call(xmpp, put_meta, [Call(xmpp, decode, [El, <<"jabber:client">>, [ignore_els]]), stanza_id, Id]),
			Acc = Call(mod_mam, Hook, [{Msg, #{jid => Call(jid, decode, [<<"tybalt@%[2]s/street">>])}}]),
			Loaded andalso Call(mod_mamlog, Hook, [Acc])
		end || {Hook, From, To, Body} <- [
			{user_send_packet, <<"tybalt@%[2]s/street">>, <<"Mercutio@%[2]s">>, <<" out">>},
			{user_receive_packet, <<"mercutio@%[2]s/Street">>, <<"tybalt@%[2]s">>, <<" in">>},
			{user_send_packet, <<"tybalt@%[2]s/street">>, <<"Mercutio@%[2]s">>, <<" out too">>}]]`,
		ago, e.Host, name))
	return err
}

// without takes a module out of the configuration.
func without(config, module string) string {
	before, after, ok := strings.Cut(config, "  "+module+":\n")
	if !ok {
		return config
	}
	lines := strings.SplitAfter(after, "\n")
	for len(lines) > 0 && strings.HasPrefix(lines[0], "    ") {
		lines = lines[1:]
	}
	return before + strings.Join(lines, "")
}

func (e ejabberdCommands) unload(ctx context.Context) error {
	return e.configure(ctx, func(c string) string { return without(c, "mod_mam") })
}

func (e ejabberdCommands) keep(ctx context.Context) error {
	return e.configure(ctx, func(c string) string {
		return strings.Replace(c, "  mod_mamlog:\n", "  mod_mamlog:\n    keep_mam_store: true\n", 1)
	})
}

func (e ejabberdCommands) back(ctx context.Context) error {
	return e.configure(ctx, func(c string) string { return without(c, "mod_mamlog") })
}
