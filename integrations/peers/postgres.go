package peers

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

//go:embed postgresql.conf.tmpl
var postgresConfig string

// Postgres is a PostgreSQL cluster with a database for ejabberd.
type Postgres struct {
	Port, Database, User string

	dir     string // world may pass: the server is another user's where this is root
	bin     string
	process process
}

// startPostgres makes a cluster and runs it.
func startPostgres(ctx context.Context) (*Postgres, error) {
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(bins) == 0 {
		return nil, errors.New("PostgreSQL is not where Debian puts it")
	}
	p := &Postgres{Database: "postgres", User: "ejabberd", bin: bins[len(bins)-1], process: process{log: new(logBuffer)}}
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	p.Port = port(addr)
	if p.dir, err = os.MkdirTemp("", "mamlog-postgres-"); err != nil {
		return nil, err
	}
	if err := p.create(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if err := p.Start(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Postgres) create(ctx context.Context) error {
	if os.Geteuid() == 0 {
		uid, gid, err := postgresUser()
		if err != nil {
			return err
		}
		if err := os.Chown(p.dir, int(uid), int(gid)); err != nil {
			return err
		}
	}
	cmd, err := p.command(ctx, "initdb", "--username", p.User, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", p.data())
	if err != nil {
		return err
	}
	if _, err := run(cmd); err != nil {
		return err
	}
	memory, err := totalMemory()
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(p.data(), "postgresql.conf"), postgresConfig, map[string]any{
		"Port": p.Port, "Dir": p.dir, "SharedBuffers": memory / 4 >> 20, "EffectiveCache": memory / 2 >> 20,
	})
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

// command is a program of PostgreSQL, which refuses to run as root.
func (p *Postgres) command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	if os.Geteuid() == 0 {
		uid, gid, err := postgresUser()
		if err != nil {
			return nil, err
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	}
	return cmd, nil
}

// postgresUser is the one that Debian's package makes.
func postgresUser() (uid, gid uint32, err error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		return 0, 0, err
	}
	a, errA := strconv.ParseUint(u.Uid, 10, 32)
	b, errB := strconv.ParseUint(u.Gid, 10, 32)
	return uint32(a), uint32(b), errors.Join(errA, errB)
}

// Start runs the cluster and returns when it answers.
func (p *Postgres) Start(ctx context.Context) error {
	if p.process.running() {
		return nil
	}
	cmd, err := p.command(context.Background(), "postgres", "-D", p.data())
	if err != nil {
		return err
	}
	return p.process.start(ctx, cmd, func(ctx context.Context) error {
		_, err := p.Run(ctx, nil, "--command", "SELECT 1")
		return err
	})
}

// Stop ends all sessions and the cluster.
func (p *Postgres) Stop() error { return p.process.stop(syscall.SIGINT, nil) }

// Close stops it and removes its data.
func (p *Postgres) Close() error { return errors.Join(p.Stop(), os.RemoveAll(p.dir)) }

// Run runs psql with these arguments and returns what it printed, without
// decoration.
func (p *Postgres) Run(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	base := []string{
		"--host", p.dir, "--port", p.Port, "--username", p.User, "--no-psqlrc", "--quiet", "--tuples-only",
		"--no-align", "--set", "ON_ERROR_STOP=1", p.Database,
	}
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "psql"), append(base, args...)...)
	cmd.Stdin = stdin
	return run(cmd)
}

// totalMemory of this machine, in bytes.
func totalMemory() (int64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "MemTotal: %d kB", &kib); err == nil {
			return kib << 10, nil
		}
	}
	return 0, errors.New("/proc/meminfo does not tell the memory of this machine")
}
