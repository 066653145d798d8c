package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mamlog/integrations/peers"
)

// fill puts the archives into the store of a running peer, as rows that its
// mod_mam would have written, with its own tools for much data.
func (s *system) fill(ctx context.Context, all []*contents) error {
	switch s.Archive {
	case peers.Internal:
		return s.fillInternal(all)
	case peers.SQLite:
		if s.Server == "prosody" {
			return s.fillProsodySQL(ctx, all)
		}
		return s.fillEjabberdSQLite(ctx, all)
	case peers.PostgreSQL:
		return s.fillPostgres(ctx, all)
	case peers.Mnesia:
		return s.fillMnesia(ctx, all)
	}
	return fmt.Errorf("%s has no archive to fill", s.Name)
}

// fillInternal writes the lists of Prosody's data manager.
func (s *system) fillInternal(all []*contents) error {
	for _, c := range all {
		path := s.server.StorePath(c.User, "archive")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		err := writeTo(path, func(w *bufio.Writer) {
			keys := rand.New(rand.NewPCG(c.seed, 2))
			for m := range c.all() {
				from, to := m.addresses(c.User, host)
				id := stanzaID(uint64(m.Index))
				fmt.Fprintf(w, `item({
	{
		%q;
		["name"] = "body";
		["attr"] = {};
	};
	{
		["name"] = "origin-id";
		["attr"] = {
			["xmlns"] = "urn:xmpp:sid:0";
			["id"] = %q;
		};
	};
	{
		["name"] = "request";
		["attr"] = {
			["xmlns"] = "urn:xmpp:receipts";
		};
	};
	{
		["name"] = "markable";
		["attr"] = {
			["xmlns"] = "urn:xmpp:chat-markers:0";
		};
	};
	["attr"] = {
		["type"] = "chat";
		["to"] = %q;
		["id"] = %q;
		["xml:lang"] = "en";
		["from"] = %q;
		["stamp"] = %q;
	};
	["name"] = "message";
	["when"] = %d;
	["key"] = %q;
	["with"] = %q;
});
`, m.Body, id, to, id, from, m.At.UTC().Format(time.RFC3339), m.At.Unix(), key(keys), m.Contact)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

const keyLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// key looks as those of Prosody's internal archive.
func key(rng *rand.Rand) string {
	b := make([]byte, 24)
	for i := range b {
		b[i] = keyLetters[rng.IntN(len(keyLetters))]
	}
	return string(b)
}

// uuid looks as the keys of Prosody's SQL archive.
func uuid(rng *rand.Rand) string {
	a, b := rng.Uint64(), rng.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", uint32(a), uint16(a>>32), a>>52, b>>52, b&(1<<48-1))
}

func writeTo(path string, write func(*bufio.Writer)) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	write(w)
	return errors.Join(w.Flush(), f.Close())
}

// tabbed is a line of tab-separated values, which need no escapes here.
func tabbed(w io.Writer, values ...string) {
	_, _ = io.WriteString(w, strings.Join(values, "\t")+"\n")
}

func (s *system) fillProsodySQL(ctx context.Context, all []*contents) error {
	// The table is made when it is first needed.
	if err := s.register(ctx, "first"); err != nil {
		return err
	}
	c, err := dial(ctx, s.server, "first", "r")
	if err != nil {
		return err
	}
	_, err = c.ask("set", "", "<query xmlns='urn:xmpp:mam:2'/>", nil)
	if err = errors.Join(err, c.Close()); err != nil {
		return err
	}
	file := filepath.Join(s.dir, "rows")
	keys := rand.New(rand.NewPCG(all[0].seed, 2))
	n := 0
	err = writeTo(file, func(w *bufio.Writer) {
		for c, m := range inOrder(all) {
			n++
			tabbed(w, strconv.Itoa(n), host, c.User, "archive", uuid(keys), strconv.FormatInt(m.At.Unix(), 10), m.Contact, "xml", m.xml(c.User, host, false))
		}
	})
	if err != nil {
		return err
	}
	return s.importSQLite(ctx, file, "prosodyarchive")
}

// ejabberdRow are the columns of its table archive up to txt, and then id and
// kind.
func ejabberdRow(c *contents, m *message, id int) []string {
	peer := m.Contact
	if !m.Out {
		peer += "/phone"
	}
	return []string{c.User, strconv.FormatInt(m.At.UnixMicro(), 10), peer, m.Contact, m.xml(c.User, host, true), m.Body, strconv.Itoa(id), "chat"}
}

func (s *system) fillEjabberdSQLite(ctx context.Context, all []*contents) error {
	file := filepath.Join(s.dir, "rows")
	n := 0
	err := writeTo(file, func(w *bufio.Writer) {
		for c, m := range inOrder(all) {
			n++
			tabbed(w, append(ejabberdRow(c, m, n), "", m.At.UTC().Format(time.DateTime))...)
		}
	})
	if err != nil {
		return err
	}
	return s.importSQLite(ctx, file, "archive")
}

// importSQLite reads a file of tab-separated rows into a table.
func (s *system) importSQLite(ctx context.Context, file, table string) error {
	// Without its indices while it is filled: they are made from sorted keys after.
	script := fmt.Sprintf(`.mode ascii
.separator "\t" "\n"
.bail on
CREATE TEMP TABLE there AS SELECT * FROM %[1]s LIMIT 0;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -500000;
CREATE TEMP TABLE indices AS SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = '%[1]s' AND sql IS NOT NULL;
.once %[2]s.drop
SELECT 'DROP INDEX "' || name || '";' FROM indices;
.once %[2]s.create
SELECT sql || ';' FROM indices;
.read %[2]s.drop
.import %[2]s %[1]s
.read %[2]s.create
`, table, file)
	cmd := exec.CommandContext(ctx, "sqlite3", s.sqlite())
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		return fmt.Errorf("fill SQLite: %v: %s", err, out)
	}
	return errors.Join(os.Remove(file), os.Remove(file+".drop"), os.Remove(file+".create"))
}

func (s *system) fillPostgres(ctx context.Context, all []*contents) error {
	r, w := io.Pipe()
	go func() {
		b := bufio.NewWriterSize(w, 1<<20)
		n := 0
		for c, m := range inOrder(all) {
			n++
			tabbed(b, append(ejabberdRow(c, m, n), "", m.At.UTC().Format(time.DateTime))...)
		}
		_ = w.CloseWithError(b.Flush())
	}()
	_, err := s.server.Postgres.Run(ctx, r, "--command",
		"COPY archive (username, timestamp, peer, bare_peer, xml, txt, id, kind, nick, created_at) FROM STDIN")
	if err != nil {
		return errors.Join(err, r.Close())
	}
	_, err = s.server.Postgres.Run(ctx, nil,
		"--command", "SELECT setval(pg_get_serial_sequence('archive', 'id'), (SELECT max(id) FROM archive))",
		"--command", "VACUUM ANALYZE archive", "--command", "CHECKPOINT")
	return err
}

// fillMnesia makes the file of mod_mam_mnesia's table, while ejabberd is stopped: a
// table takes one record after the other in a time that grows with their square.
func (s *system) fillMnesia(ctx context.Context, all []*contents) error {
	file := filepath.Join(s.dir, "rows")
	err := writeTo(file, func(w *bufio.Writer) {
		for c, m := range inOrder(all) {
			resource := ""
			if !m.Out {
				resource = "phone"
			}
			tabbed(w, c.User, strconv.FormatInt(m.At.UnixMicro(), 10), strings.TrimSuffix(m.Contact, "@far.example"), resource, m.xml(c.User, host, true))
		}
	})
	if err != nil {
		return err
	}
	if err := s.server.Stop(); err != nil {
		return err
	}
	// The text of a stanza is parsed with ejabberd's parser.
	_, err = s.server.Eval(ctx, fmt.Sprintf(`
		{ok, File} = file:open(%q, [read, binary, {read_ahead, 1048576}]),
		{ok, _} = application:ensure_all_started(fast_xml),
		Record = fun(Line) ->
			[User, Time, Contact, Resource, Xml] = binary:split(string:trim(Line, trailing, "\n"), <<"\t">>, [global]),
			Us = binary_to_integer(Time),
			{archive_msg, {User, <<%q>>}, Time, {Us div 1000000000000, Us div 1000000 rem 1000000, Us rem 1000000},
				{Contact, <<"far.example">>, Resource}, {Contact, <<"far.example">>, <<>>},
				fxml_stream:parse_element(Xml), <<>>, chat}
		end,
		Lines = fun Lines(0, Records) -> Records; Lines(N, Records) -> case file:read_line(File) of
			{ok, Line} -> Lines(N - 1, [Record(Line) | Records]);
			eof -> Records
		end end,
		Read = fun Read(close) -> ok; Read(read) -> case Lines(1000, []) of
			[] -> end_of_input;
			Records -> {lists:reverse(Records), Read}
		end end,
		{ok, Table} = dets:open_file(table, [{file, %q}, {type, bag}, {keypos, 2}]),
		ok = dets:init_table(Table, Read, [{format, term}]),
		ok = dets:close(Table)`, file, host, filepath.Join(s.server.Dir, "spool", "archive_msg.DAT")))
	if err = errors.Join(err, os.Remove(file)); err != nil {
		return err
	}
	return s.server.Start(ctx)
}
