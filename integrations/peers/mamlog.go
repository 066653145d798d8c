package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"connectrpc.com/connect"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
)

// MamlogOptions for StartMamlog.
type MamlogOptions struct {
	Binary string    // see BuildMamlog
	Dir    string    // for all files; default: a temporary one, which Close removes
	Config string    // more lines of configuration, YAML at the top level
	Links  []*Server // servers to be the archive of; none: serve accounts itself
	Host   string    // without Links: domain of the accounts; default peer.example

	ExpiresAfter string // archive_expires_after; default never, as with the others
}

// BuildMamlog builds the binary of this tree in dir and returns its path.
func BuildMamlog(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "mamlog")
	_, err := run(exec.CommandContext(ctx, "go", "build", "-o", binary, "mamlog/cmd/mamlog"))
	return binary, err
}

// mamlog is the server that this project makes.
type mamlog struct{ binary, config, socket string }

// StartMamlog runs mamlog.
func StartMamlog(ctx context.Context, o MamlogOptions) (*Server, error) {
	s, err := newServer("mamlog", &Options{Host: o.Host, Dir: o.Dir})
	if err != nil {
		return nil, err
	}
	s.ComponentAddr, s.S2SAddr, s.RoomsHost, s.ArchiveHost = "", "", "", ""
	if o.ExpiresAfter == "" {
		o.ExpiresAfter = "never"
	}
	text := fmt.Sprintf("data_dir: %q\narchive_expires_after: %s\nlog_level: warn\n", filepath.Join(s.Dir, "data"), o.ExpiresAfter)
	if len(o.Links) == 0 {
		s.WebSocketURL = "ws://" + s.WebSocketAddr + "/xmpp-websocket"
		text += fmt.Sprintf("hosts: [%s]\nc2s: {listen: %q, websocket_listen: %q, allow_plaintext: true}\n", s.Host, s.C2SAddr, s.WebSocketAddr)
	} else {
		s.C2SAddr, s.WebSocketAddr = "", ""
		var hosts []string
		links := "links:\n"
		for _, l := range o.Links {
			hosts = append(hosts, l.Host, l.RoomsHost)
			links += fmt.Sprintf("  - {server: %q, domain: %q, secret: %q, hosts: [%s, %s]}\n", l.ComponentAddr, l.ArchiveHost, l.Secret, l.Host, l.RoomsHost)
		}
		text += "hosts: [" + strings.Join(hosts, ", ") + "]\n" + links
	}
	m := mamlog{o.Binary, filepath.Join(s.Dir, "mamlog.yaml"), filepath.Join(s.Dir, "data", "admin.sock")}
	s.server = m
	if err := os.WriteFile(m.config, []byte(text+o.Config), 0o600); err != nil {
		return nil, err
	}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (m mamlog) command(*Server) *exec.Cmd {
	return exec.Command(m.binary, "serve", "--config", m.config)
}

func (m mamlog) ctl(ctx context.Context, _ *Server, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, m.binary, append(args, "--config", m.config)...)
}

// dial connects to the admin service.
func (m mamlog) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", m.socket)
}

func (m mamlog) ready(ctx context.Context, _ *Server) error {
	conn, err := m.dial(ctx, "", "")
	if err != nil {
		return err
	}
	return conn.Close()
}

func (m mamlog) register(ctx context.Context, s *Server, users []string) error {
	transport := &http.Transport{DialContext: m.dial}
	defer transport.CloseIdleConnections()
	client := adminv1connect.NewAdminServiceClient(&http.Client{Transport: transport}, "http://mamlog")
	return inParallel(users, func(u string) error {
		name, host := s.account(u)
		_, err := client.AddUser(ctx, connect.NewRequest(&adminv1.AddUserRequest{Jid: name + "@" + host, Password: Password}))
		return err
	})
}

// inParallel calls do for all of a list, four at once, until one fails.
func inParallel(list []string, do func(string) error) error {
	next := make(chan string)
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for s := range next {
				if errs[i] == nil {
					errs[i] = do(s)
				}
			}
		})
	}
	for _, s := range list {
		next <- s
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}
