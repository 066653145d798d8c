package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mellium.im/xmpp/jid"

	"mamlog/attach/c2s"
	"mamlog/integrations/peers"
)

// contender is one way to run a server with or without an archive.
type contender struct {
	Name    string
	Server  string // prosody, ejabberd or mamlog
	Archive peers.Archive
}

// The contenders. Those that sync what they acknowledge are mamlog, SQLite and
// PostgreSQL.
var (
	embedded         = contender{"mamlog", "mamlog", peers.Mamlog}
	prosodyNone      = contender{"Prosody, no archive", "prosody", peers.None}
	prosodyInternal  = contender{"Prosody, mod_mam, internal", "prosody", peers.Internal}
	prosodySQLite    = contender{"Prosody, mod_mam, SQLite", "prosody", peers.SQLite}
	prosodyMamlog    = contender{"Prosody + mamlog", "prosody", peers.Mamlog}
	ejabberdNone     = contender{"ejabberd, no archive", "ejabberd", peers.None}
	ejabberdMnesia   = contender{"ejabberd, mod_mam, mnesia", "ejabberd", peers.Mnesia}
	ejabberdSQLite   = contender{"ejabberd, mod_mam, SQLite", "ejabberd", peers.SQLite}
	ejabberdPostgres = contender{"ejabberd, mod_mam, PostgreSQL", "ejabberd", peers.PostgreSQL}
	ejabberdMamlog   = contender{"ejabberd + mamlog", "ejabberd", peers.Mamlog}
)

// archives tells whether the contender has an archive at all.
func (c contender) archives() bool { return c.Archive != peers.None }

// system is a contender that runs.
type system struct {
	contender
	server *peers.Server // that clients connect to
	mamlog *peers.Server // its archive, if that is another process
	dir    string

	accounts *c2s.Accounts // if the server is in this process
}

// register makes accounts.
func (s *system) register(ctx context.Context, users ...string) error {
	if s.accounts == nil {
		return s.server.Register(ctx, users...)
	}
	for _, u := range users {
		j, err := jid.New(u, host, "")
		if err != nil {
			return err
		}
		if err := s.accounts.Add(ctx, j, peers.Password, "benchmark"); err != nil {
			return err
		}
	}
	return nil
}

// systemOptions for start.
type systemOptions struct {
	contents []*contents // what is in archives
	count    bool        // Prosody counts archives, which it otherwise leaves out where they are kept for ever
}

// start runs a contender.
func (b *Bench) start(ctx context.Context, c contender, o systemOptions) (_ *system, err error) {
	s := &system{contender: c}
	if s.dir, err = os.MkdirTemp(b.Dir, "mamlog-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start %s: %w", c.Name, errors.Join(err, s.close()))
		}
	}()
	ours := filepath.Join(s.dir, "mamlog")
	if c.Archive == peers.Mamlog {
		if err := os.Mkdir(ours, 0o700); err != nil {
			return nil, err
		}
		if len(o.contents) > 0 {
			if err := fillDir(filepath.Join(ours, "data"), host, o.contents, nil); err != nil {
				return nil, err
			}
		}
	}
	if c == embedded {
		s.server, err = peers.StartMamlog(ctx, peers.MamlogOptions{Binary: b.binary, Dir: ours, Host: host})
		return s, err
	}
	po := peers.Options{Host: host, Dir: filepath.Join(s.dir, c.Server), Archive: c.Archive}
	if err := os.Mkdir(po.Dir, 0o700); err != nil {
		return nil, err
	}
	if o.count && c.Server == "prosody" {
		po.Global = "mam_include_total = true"
	}
	if c.Archive == peers.Mamlog {
		if po.Module, err = peers.Module(ctx, c.Server); err != nil {
			return nil, err
		}
	}
	run := peers.StartProsody
	if c.Server == "ejabberd" {
		run = peers.StartEjabberd
	}
	if s.server, err = run(ctx, po); err != nil {
		return nil, err
	}
	if c.Archive == peers.Mamlog {
		s.mamlog, err = peers.StartMamlog(ctx, peers.MamlogOptions{Binary: b.binary, Dir: ours, Links: []*peers.Server{s.server}})
		if err == nil {
			err = s.awaitArchive(ctx)
		}
		return s, err
	}
	if len(o.contents) > 0 {
		err = s.fill(ctx, o.contents)
	}
	return s, err
}

// host is the domain of every server that is measured.
const host = "bench.example"

// awaitArchive returns when the server announces the archive, which the module
// does once mamlog has greeted it.
func (s *system) awaitArchive(ctx context.Context) error {
	if err := s.register(ctx, "first"); err != nil {
		return err
	}
	c, err := dial(ctx, s.server, "first", "r")
	if err != nil {
		return err
	}
	defer c.Close()
	deadline := time.Now().Add(patience)
	for {
		e, err := c.ask("get", "first@"+host, "<query xmlns='http://jabber.org/protocol/disco#info'/>", nil)
		if err != nil {
			return err
		}
		if bytes.Contains(e, []byte("urn:xmpp:mam:2")) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server does not announce the archive\n%s\n%s", s.server.Log(), s.mamlog.Log())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond): // until the next look
		}
	}
}

// close stops everything and removes its files.
func (s *system) close() (err error) {
	if s.mamlog != nil {
		err = s.mamlog.Close()
	}
	if s.server != nil {
		err = errors.Join(err, s.server.Close())
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// archiveBytes is what the archives take on disk: for a database its tables and
// indices without its write-ahead log, for the others all of their files.
func (s *system) archiveBytes(ctx context.Context) (int64, error) {
	switch s.Archive {
	case peers.Internal:
		return treeBytes(filepath.Dir(s.server.StorePath("x", "archive")))
	case peers.PostgreSQL:
		out, err := s.server.Postgres.Run(ctx, nil, "--command", "SELECT pg_total_relation_size('archive')")
		if err != nil {
			return 0, err
		}
		return strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	case peers.SQLite:
		return treeBytes(s.sqlite())
	case peers.Mnesia:
		return treeBytes(filepath.Join(s.server.Dir, "spool", "archive_msg.DAT"))
	case peers.Mamlog:
		return treeBytes(filepath.Join(s.dir, "mamlog", "data", "stores"))
	}
	return 0, fmt.Errorf("%s has no archive", s.Name)
}

// sqlite is the path of the database.
func (s *system) sqlite() string {
	if s.Server == "prosody" {
		return filepath.Join(s.server.Dir, "data", "prosody.sqlite")
	}
	return filepath.Join(s.server.Dir, "ejabberd.sqlite")
}

// treeBytes is the size of all files below a path. What vanishes meanwhile
// doesn't count.
func treeBytes(path string) (n int64, err error) {
	err = filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if errors.Is(err, os.ErrNotExist) && p != path {
				return nil
			}
			return err
		}
		info, err := d.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}
