package integrations

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mamlog/cmd/mamlog/conformance"
	"mamlog/integrations/peers"
)

// patience bounds every wait for something that must happen. It is generous
// because a loaded machine is no reason to fail.
const patience = 2 * time.Minute

// kind is a server that mamlog can be the archive of.
type kind struct {
	name     string // also of the directory with its module
	start    func(context.Context, peers.Options) (*peers.Server, error)
	push     string // its module for notifications to phones
	packages []string
}

var kinds = []kind{
	{"prosody", peers.StartProsody, "cloud_notify", []string{"prosody", "prosody-modules", "lua-posix", "lua-dbi-sqlite3"}},
	{"ejabberd", peers.StartEjabberd, "mod_push", []string{"ejabberd", "erlang-p1-sqlite3"}},
}

// onBoth runs a test for each server, at the same time.
func onBoth(t *testing.T, f func(t *testing.T, k kind)) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			conformance.NeedDebian(t, k.packages...)
			f(t, k)
		})
	}
}

// site is a server with the module, and the mamlog that is its archive.
type site struct {
	kind
	*peers.Server
	archive *conformance.Server
	link    *proxy            // between the two; nil without
	hosts   map[string]string // domain by options, as YAML lines

	impostor *impostor // nil without
}

type siteOptions struct {
	configs []string      // for each set of a host's options, a host that has it
	failing []string      // for each of failures that is named, a host that does that
	proxied bool          // the link goes through a proxy
	link    string        // more of the link, as YAML
	before  peers.Archive // what the server begins with; "" for mamlog
	links   string        // more links of mamlog, as YAML, and their hosts
	linked  []string
	server  peers.Options // of the server
}

// startSite returns when the archive answers for every host.
func startSite(ctx context.Context, k kind, o siteOptions) (_ *site, err error) {
	s := &site{kind: k, hosts: map[string]string{"": k.name + ".example"}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	o.server.Host, o.server.Archive, o.server.Module = k.name+".example", peers.Mamlog, k.name
	if o.before != "" {
		o.server.Archive = o.before
	}
	domains := []string{o.server.Host, "conference." + o.server.Host}
	hosts := "hosts:\n"
	for _, d := range append(domains, o.linked...) {
		hosts += "  - " + d + "\n"
	}
	for i, c := range o.configs {
		if s.hosts[c] != "" {
			continue
		}
		d := fmt.Sprintf("h%d.%s", i, o.server.Host)
		s.hosts[c] = d
		o.server.Hosts = append(o.server.Hosts, d)
		hosts += "  - " + d + ":\n      " + strings.ReplaceAll(strings.TrimSpace(c), "\n", "\n      ") + "\n"
		domains = append(domains, d)
	}
	for _, name := range o.failing {
		d := name + "." + o.server.Host
		k.failing(&o.server, d, name)
		hosts += "  - " + d + "\n"
		domains = append(domains, d)
	}
	if s.Server, err = k.start(ctx, o.server); err != nil {
		return nil, err
	}
	addr := s.ComponentAddr
	if o.proxied {
		if s.link, err = newProxy(addr); err != nil {
			return nil, err
		}
		addr = s.link.addr
	}
	dir, err := os.MkdirTemp("", "mamlog-site-")
	if err != nil {
		return nil, err
	}
	s.archive, err = conformance.NewArchive(dir, fmt.Sprintf("%sarchive_expires_after: never\nlinks:\n  - {server: %q, domain: %q, secret: %q, hosts: [%s], %s}\n%s",
		hosts, addr, s.ArchiveHost, s.Secret, strings.Join(domains, ", "), o.link, o.links))
	if err != nil {
		return nil, err
	}
	if err := s.archive.Start(); err != nil {
		return nil, err
	}
	for _, d := range domains {
		if err := s.untilAnswers(ctx, d); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// failures are options of the module, as each server's configuration has them, by
// the name of a host that has them.
var failures = map[string]map[string]string{
	"bounce": {"prosody": `mamlog_on_failure = "bounce"`, "ejabberd": "on_failure: bounce"},
	"pass":   {"prosody": `mamlog_on_failure = "pass"`, "ejabberd": "on_failure: pass"},
	"full":   {"prosody": "mamlog_spool_max = 1048576", "ejabberd": "spool_max: 1048576"},
}

// failing adds a host with one of failures.
func (k kind) failing(o *peers.Options, domain, name string) {
	options := failures[name][k.name]
	if k.name == "prosody" {
		o.Accounts += fmt.Sprintf("VirtualHost %q\n\t%s\n", domain, options)
		return
	}
	o.Hosts = append(o.Hosts, domain)
	if o.Global == "" {
		o.Global = "host_config:\n"
	}
	// These are all modules of the host, in the place of the others.
	o.Global += fmt.Sprintf("  %q:\n    modules:\n      mod_disco: {}\n      mod_roster: {}\n      mod_offline: {}\n      mod_mamlog: {component: \"archive.%s\", %s}\n", domain, o.Host, options)
}

func (s *site) close() error {
	var err error
	if s.Server != nil {
		err = s.Server.Close()
	}
	if s.link != nil {
		err = errors.Join(err, s.link.cut())
	}
	if s.impostor != nil {
		err = errors.Join(err, s.impostor.Close())
	}
	if s.archive != nil {
		_ = s.archive.Signal(syscall.SIGCONT) // a test that failed may have left it hanging
		err = errors.Join(err, s.archive.Stop(), os.RemoveAll(s.archive.Dir))
	}
	return err
}

// ownSite is a site for one test, which may do anything to it.
func ownSite(t *testing.T, k kind, o siteOptions) *site {
	t.Helper()
	s, err := startSite(t.Context(), k, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
		s.showLogs(t)
	})
	return s
}

// untilAnswers waits until the archives of a domain can be asked.
func (s *site) untilAnswers(ctx context.Context, domain string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	h := s.host(domain)
	if domain == s.RoomsHost {
		h = s.host(s.Host)
	}
	name := fmt.Sprint("asker", asked.Add(1))
	if err := h.AddUser(ctx, name); err != nil {
		return err
	}
	c, err := h.Dial(ctx, name, "asker")
	if err != nil {
		return err
	}
	defer c.Close()
	archive := c.Bare
	if domain == s.RoomsHost {
		archive = name + "@" + domain
		if err := c.NewRoom(archive, "asker"); err != nil {
			return err
		}
	}
	for {
		answer, err := c.CallTo(archive, "get", "<query xmlns='urn:xmpp:mam:2'/>")
		if err != nil || answer.Attr("type") == "result" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the archive of %s does not answer: %s\n%s\n%s", domain, answer, tail(s.Log(), 50), tail(s.archive.Log(), 20))
		case <-time.After(20 * time.Millisecond): // until the next look
		}
	}
}

var asked atomic.Uint32 // times of untilAnswers

// host is one of the site's domains, as the conformance suite wants it.
func (s *site) host(domain string) conformance.Host {
	return conformance.Host{
		Domain: domain, Rooms: s.RoomsHost, Addr: s.C2SAddr,
		AddUser: func(ctx context.Context, user string) error { return s.Register(ctx, user+"@"+domain) },
	}
}

func (s *site) showLogs(t *testing.T) {
	if t.Failed() {
		t.Logf("%s's log ends:\n%s\nmamlog's log ends:\n%s", s.name, tail(s.Log(), 100), tail(s.archive.Log(), 60))
	}
}

func tail(s string, lines int) string {
	all := strings.Split(s, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
