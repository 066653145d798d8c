package conformance

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var build struct {
	once sync.Once
	dir  string
	bin  string
	err  error
}

// Binary returns the mamlog binary under test: MAMLOG_BIN where set, else one
// built from this tree, once a test run.
func Binary() (string, error) {
	build.once.Do(func() {
		if build.bin = os.Getenv("MAMLOG_BIN"); build.bin != "" {
			build.bin, build.err = filepath.Abs(build.bin)
			return
		}
		if build.dir, build.err = os.MkdirTemp("", "mamlog-conformance-"); build.err != nil {
			return
		}
		build.bin = filepath.Join(build.dir, "mamlog")
		out, err := exec.Command("go", "build", "-o", build.bin, "mamlog/cmd/mamlog").CombinedOutput()
		if err != nil {
			build.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	return build.bin, build.err
}

// RemoveBinary removes what Binary built.
func RemoveBinary() {
	if build.dir != "" {
		_ = os.RemoveAll(build.dir)
	}
}

// Server is one mamlog process with a data directory of its own. Start and
// the ways to stop it are called by one goroutine; the rest is safe for
// concurrent use.
type Server struct {
	Addr   string // host:port of the client listener; "" without one
	Dir    string // holds config.yaml and data/
	Config string

	bin  string
	log  lockedBuffer // of every process started, one after the other
	cmd  *exec.Cmd
	exit chan error // receives when the process has ended
}

// NewServer writes a configuration in dir, with further top-level YAML lines
// in extra, and starts nothing yet.
func NewServer(dir, extra string) (*Server, error) {
	bin, err := Binary()
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf("hosts: [%s]\nc2s: {listen: %q, allow_plaintext: true}\n%s", Domain, addr, extra)
	s, err := newServer(bin, dir, config)
	if err != nil {
		return nil, err
	}
	s.Addr = addr
	return s, nil
}

// NewArchive is NewServer for a process that serves no clients: all of its
// configuration but data_dir is in config.
func NewArchive(dir, config string) (*Server, error) {
	bin, err := Binary()
	if err != nil {
		return nil, err
	}
	return newServer(bin, dir, config)
}

func newServer(bin, dir, config string) (*Server, error) {
	s := &Server{Dir: dir, Config: filepath.Join(dir, "config.yaml"), bin: bin}
	config = fmt.Sprintf("data_dir: %s\n%s", filepath.Join(dir, "data"), config)
	return s, os.WriteFile(s.Config, []byte(config), 0o600)
}

// ports counts through those already given out by this process, from a random
// beginning, so that test processes running at once seldom meet.
var ports atomic.Uint32

func init() { ports.Store(rand.Uint32N(20000)) }

// freeAddr finds a free loopback port below the range from which the kernel
// serves outgoing connections: one of those could take the port while a killed
// server is down.
func freeAddr() (string, error) {
	var err error
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 12000+ports.Add(1)%20000)
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", err
}

// Start runs the server and returns when it accepts connections and commands.
func (s *Server) Start() error {
	cmd := exec.Command(s.bin, "serve", "--config", s.Config)
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	if err := cmd.Start(); err != nil {
		return err
	}
	exit := make(chan error, 1)
	go func() { exit <- cmd.Wait() }()
	s.cmd, s.exit = cmd, exit
	deadline := time.Now().Add(patience)
	for {
		// The commands are answered last; but a long name is none for the kernel.
		network, addr := "unix", filepath.Join(s.Dir, "data", "admin.sock")
		if s.Addr != "" && len(addr) > 100 {
			network, addr = "tcp", s.Addr
		}
		conn, err := net.DialTimeout(network, addr, time.Second)
		if err == nil {
			_ = conn.Close()
			return nil
		}
		select {
		case err := <-exit:
			s.cmd = nil
			return fmt.Errorf("the server ended before it accepted anyone: %v\n%s", err, s.Log())
		case <-time.After(10 * time.Millisecond): // until the next look
		}
		if time.Now().After(deadline) {
			_ = s.Kill()
			return fmt.Errorf("the server does not accept connections on %s\n%s", addr, s.Log())
		}
	}
}

// Stop ends the server as an operator would, with SIGTERM, and fails if that
// is not a clean end.
func (s *Server) Stop() error {
	if s.cmd == nil {
		return nil
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-s.exit:
		s.cmd = nil
		if err != nil {
			return fmt.Errorf("after SIGTERM: %w", err)
		}
		return nil
	case <-time.After(patience):
		_ = s.Kill()
		return fmt.Errorf("the server ignored SIGTERM for %v", patience)
	}
}

// Signal sends the server a signal, as SIGSTOP to let it hang.
func (s *Server) Signal(signal syscall.Signal) error {
	if s.cmd == nil {
		return os.ErrProcessDone
	}
	return s.cmd.Process.Signal(signal)
}

// Kill ends the server with SIGKILL.
func (s *Server) Kill() error {
	if s.cmd == nil {
		return nil
	}
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	<-s.exit
	s.cmd = nil
	return nil
}

// Run runs a mamlog command against this server's configuration.
func (s *Server) Run(ctx context.Context, stdin string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.bin, append(args, "--config", s.Config)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("mamlog %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// AddUser creates the account user@Domain through the command line.
func (s *Server) AddUser(ctx context.Context, user string) error {
	_, err := s.Run(ctx, Password+"\n", "user", "add", user+"@"+Domain)
	return err
}

// Host is this server, for those who play transcripts on it.
func (s *Server) Host() Host { return Host{Domain: Domain, Addr: s.Addr, AddUser: s.AddUser} }

// Dial logs in as user with a resource, in plain text, and becomes available.
func (s *Server) Dial(ctx context.Context, user, resource string) (*Client, error) {
	return s.Host().Dial(ctx, user, resource)
}

// Log returns what the server has written so far.
func (s *Server) Log() string { return s.log.String() }

// lockedBuffer is a buffer that a process writes and a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
