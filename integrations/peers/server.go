package peers

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"text/template"
)

// Password is that of every account.
const Password = "wherefore art thou"

// Archive is what holds a server's archives.
type Archive string

const (
	None       Archive = "none"       // the server has no archive
	Internal   Archive = "internal"   // Prosody: mod_mam on its files, which it does not sync
	SQLite     Archive = "sqlite"     // mod_mam on SQLite
	Mnesia     Archive = "mnesia"     // ejabberd: mod_mam on its own database
	PostgreSQL Archive = "postgresql" // ejabberd: mod_mam on a PostgreSQL of its own
	Mamlog     Archive = "mamlog"     // the module of Options.Module
)

// Options for StartProsody and StartEjabberd.
type Options struct {
	Host    string   // domain of the accounts; default peer.example
	Hosts   []string // more domains with accounts, and the same modules
	Dir     string   // for all files; default: a temporary one, which Close removes
	Archive Archive  // default None
	// The directory of mamlog's module, integrations/prosody or integrations/ejabberd.
	// With Mamlog it is loaded, otherwise it can be while the server runs.
	Module string

	// Lines of configuration in the server's own language. Of ejabberd, Global is
	// YAML at the top level, Accounts are options of mod_mamlog, and Rooms of mod_muc.
	Global, Accounts, Rooms string

	// The archive None is asked of the component ArchiveHost, without a module of
	// mamlog's (XEP-0355, XEP-0356). Prosody has it from prosody-modules.
	Delegation bool

	// A file with the certificate and the key of the component listener, which then
	// speaks TLS; of ejabberd only.
	ComponentCertificate string

	Modules    []string          // more modules of the server's own to load
	Components map[string]string // more external components: secret by domain
	S2SAddr    string            // to listen on for servers; default: a free one
	Remote     map[string]string // addresses of other servers, by domain
}

// Server is one XMPP server. Start, Stop, Kill and Close are called by one
// goroutine; the rest is safe for concurrent use while the server runs.
type Server struct {
	Name    string // prosody, ejabberd or mamlog
	Version string // of its Debian package; empty for mamlog

	Host        string // domain of the accounts
	RoomsHost   string // domain of the rooms (XEP-0045)
	ArchiveHost string // domain of mamlog's component

	C2SAddr       string // host:port, plain text, SASL PLAIN
	ComponentAddr string // host:port for XEP-0114
	S2SAddr       string
	WebSocketAddr string // host:port of WebSocketURL
	WebSocketURL  string
	Secret        string // of the component ArchiveHost
	Dir           string

	Postgres *Postgres // nil without one

	process process
	names   *nameserver // nil without one
	remove  bool        // Dir is temporary
	server
}

// server is what differs.
type server interface {
	command(*Server) *exec.Cmd
	ready(context.Context, *Server) error
	ctl(context.Context, *Server, ...string) *exec.Cmd
	register(context.Context, *Server, []string) error
}

func newServer(name string, o *Options) (*Server, error) {
	if o.Host == "" {
		o.Host = "peer.example"
	}
	if o.Archive == "" {
		o.Archive = None
	}
	if o.Archive == Mamlog && o.Module == "" {
		return nil, errors.New("the archive mamlog needs a module")
	}
	s := &Server{
		Name: name, Host: o.Host, RoomsHost: "conference." + o.Host, ArchiveHost: "archive." + o.Host,
		Secret: "component secret", Dir: o.Dir, S2SAddr: o.S2SAddr, process: process{log: new(logBuffer)},
	}
	var err error
	if name != "mamlog" {
		if s.Version, err = version(name); err != nil {
			return nil, err
		}
	}
	if s.Dir == "" {
		s.remove = true
		if s.Dir, err = os.MkdirTemp("", "mamlog-peer-"); err != nil {
			return nil, err
		}
	}
	if s.Dir, err = filepath.Abs(s.Dir); err != nil {
		return nil, err
	}
	for _, addr := range []*string{&s.C2SAddr, &s.ComponentAddr, &s.S2SAddr, &s.WebSocketAddr} {
		if *addr == "" {
			if *addr, err = FreeAddr(); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// components are all external components: secret by domain.
func (s *Server) components(o Options) map[string]string {
	all := map[string]string{s.ArchiveHost: s.Secret}
	for domain, secret := range o.Components {
		all[domain] = secret
	}
	return all
}

// Start runs the server, on the data that it had, and returns when it serves
// clients. It is already started when it is new.
func (s *Server) Start(ctx context.Context) error {
	if s.Postgres != nil {
		if err := s.Postgres.Start(ctx); err != nil {
			return err
		}
	}
	return s.process.start(ctx, s.command(s), func(ctx context.Context) error {
		for _, addr := range []string{s.C2SAddr, s.ComponentAddr} {
			if addr == "" {
				continue
			}
			var d net.Dialer
			conn, err := d.DialContext(ctx, "tcp", addr)
			if err != nil {
				return err
			}
			_ = conn.Close()
		}
		return s.ready(ctx, s)
	})
}

// brokenStop is in Prosody's log when the signal to stop came while it was removing
// a session. It handles signals at once, between any two instructions: its shutdown
// then breaks off over the half-removed session, and it hears no signal any more.
var brokenStop = regexp.MustCompile(`mod_c2s\.lua:\d+: attempt to call a nil value \(method 'close'\)`)

// Stop ends the server as an operator would, and waits for the end.
func (s *Server) Stop() error {
	before := s.process.log.size()
	err := s.process.stop(syscall.SIGTERM, func() (broken bool) {
		// A signal that comes just before Prosody waits for its sockets is handled only
		// when something wakes it.
		if conn, err := net.Dial("tcp", s.C2SAddr); err == nil {
			_ = conn.Close()
		}
		return s.Name == "prosody" && brokenStop.MatchString(s.process.log.since(before))
	})
	if s.Postgres != nil {
		err = errors.Join(err, s.Postgres.Stop())
	}
	return err
}

// Kill ends the server with SIGKILL; its database goes on.
func (s *Server) Kill() error { return s.process.kill() }

// Signal sends a signal to the server, as SIGSTOP to let it hang.
func (s *Server) Signal(signal syscall.Signal) error { return s.process.cmd.Process.Signal(signal) }

// Close stops the server and removes what it kept in temporary directories.
func (s *Server) Close() error {
	err := s.Stop()
	if s.Postgres != nil {
		err = errors.Join(err, s.Postgres.Close())
	}
	if s.names != nil {
		err = errors.Join(err, s.names.conn.Close())
	}
	if s.remove {
		err = errors.Join(err, os.RemoveAll(s.Dir))
	}
	return err
}

// Log is what the server has written so far.
func (s *Server) Log() string { return s.process.log.String() }

// Groups are the process groups of the running server and of its database.
func (s *Server) Groups() []int {
	groups := []int{s.process.cmd.Process.Pid}
	if s.Postgres != nil {
		groups = append(groups, s.Postgres.process.cmd.Process.Pid)
	}
	return groups
}

// Register creates accounts with Password: users of Host, or bare JIDs.
func (s *Server) Register(ctx context.Context, users ...string) error {
	return s.register(ctx, s, users)
}

// account splits what Register is given.
func (s *Server) account(user string) (name, host string) {
	if name, host, ok := strings.Cut(user, "@"); ok {
		return name, host
	}
	return user, s.Host
}

// Ctl runs prosodyctl, ejabberdctl, or a command of mamlog, and returns what
// it printed.
func (s *Server) Ctl(ctx context.Context, args ...string) (string, error) {
	return run(s.ctl(ctx, s, args...))
}

// run returns what cmd printed.
func run(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out), nil
}

// writeFile executes a template into a file.
func writeFile(path, text string, data any) error {
	t, err := template.New(filepath.Base(path)).Option("missingkey=error").Parse(text)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(t.Execute(f, data), f.Close())
}

//go:embed packages.txt
var packages string

// Missing are the Debian packages that the servers need and that are not
// installed.
func Missing() []string {
	var missing []string
	for _, p := range strings.Fields(packages) {
		if _, err := version(p); err != nil {
			missing = append(missing, p)
		}
	}
	return missing
}

// version of an installed Debian package.
func version(name string) (string, error) {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", name).Output()
	if v, ok := strings.CutPrefix(string(out), "installed "); err == nil && ok {
		return v, nil
	}
	return "", fmt.Errorf("the Debian package %s is not installed", name)
}

// Module is the directory of mamlog's module for a server, in this tree.
func Module(ctx context.Context, server string) (string, error) {
	out, err := run(exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "mamlog"))
	return filepath.Join(strings.TrimSpace(out), "integrations", server), err
}
