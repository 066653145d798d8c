package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
	"mellium.im/xmpp/jid"
)

const serverForms = "HOST:PORT, as in 127.0.0.1:5347 or xmpp.example.org:5347"

// readLinks reads the list of links, and turns the embedded host off where nothing
// else is said about it.
func (d *decoder) readLinks(list *yaml.Node) {
	c := d.config
	onLink := make(map[string]int) // host to line
	streams := make(map[string]int)
	for i, n := range list.Content {
		n, path := target(n), fmt.Sprintf("links[%d]", i)
		l, ok := d.readLink(path, n, onLink)
		if !ok {
			continue
		}
		// The server would throw one out for the other, for ever.
		stream := l.Domain + " " + l.Server
		if line, twice := streams[stream]; twice && l.Domain != "" && l.Server != "" {
			d.fail(n, path, "the component %s at %s is on a link already, in line %d; allowed is one link with all of its hosts", l.Domain, l.Server, line)
		}
		streams[stream] = n.Line
		c.Links = append(c.Links, l)
	}
	if len(list.Content) == 0 {
		return
	}
	if d.c2s == nil {
		c.C2S.Listen = ""
	} else if len(c.Hosts) > 0 && len(c.LocalHosts()) == 0 && !d.failed("links") {
		d.fail(d.c2s, "c2s", "all hosts are on links, so there is none whose clients could connect here; allowed is to leave c2s out, or a host that is on no link")
	}
}

func (d *decoder) readLink(path string, n *yaml.Node, onLink map[string]int) (Link, bool) {
	var l Link
	var hosts, secret, secretFile, ca, serverName *yaml.Node
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "this is %s; allowed is a mapping of server, domain, secret and hosts", describe(n))
		return l, false
	}
	// note keeps where an option stands, for what concerns several of them.
	note := func(at **yaml.Node, read func(string, *yaml.Node)) func(string, *yaml.Node) {
		return func(path string, n *yaml.Node) {
			*at = n
			read(path, n)
		}
	}
	d.mapping(path, n, []option{
		{"server", d.server(&l.Server)},
		{"domain", d.domain(&l.Domain)},
		{"secret", note(&secret, d.secret(&l.Secret))},
		{"secret_file", note(&secretFile, d.secretFile(&l.SecretFile))},
		{"hosts", func(path string, n *yaml.Node) { hosts = n }},
		{"tls", d.boolean(&l.TLS)},
		{"ca", note(&ca, d.pem(&l.CA))},
		{"server_name", note(&serverName, d.text(&l.ServerName, "a name that is in the server's certificate"))},
		{"allow_plaintext", d.boolean(&l.AllowPlaintext)},
		{"delegation", d.boolean(&l.Delegation)},
	})
	missing := func(name, what string) {
		if at := join(path, name); !d.failed(at) {
			d.fail(n, at, "it is missing; %s", what)
		}
	}
	if l.Server == "" {
		missing("server", "it is the address of the server's component listener, "+serverForms)
	}
	if l.Domain == "" {
		missing("domain", "it is the component's domain, as in archive.example.org")
	}
	if d.config.Host(l.Domain) != nil {
		d.fail(n, join(path, "domain"), "%s is one of the hosts; allowed is a domain of the component's own, as in archive.%s", l.Domain, l.Domain)
	}
	switch {
	case secret == nil && secretFile == nil:
		missing("secret", "it is what the server has for this component; secret_file names a file with it")
	case secret != nil && secretFile != nil:
		d.fail(secretFile, join(path, "secret_file"), "secret is set too; allowed is one of them")
	}
	if hosts == nil {
		missing("hosts", "it lists which of the hosts the server has, as in [example.org]")
	} else {
		d.linkHosts(join(path, "hosts"), hosts, &l, onLink)
	}
	for _, o := range []struct {
		name string
		at   *yaml.Node
	}{{"ca", ca}, {"server_name", serverName}} {
		if at := join(path, o.name); o.at != nil && !l.TLS && !d.failed(at) {
			d.fail(o.at, at, "it says something about TLS, which is off; allowed is tls: true with it")
		}
	}
	if l.Server != "" && !l.TLS && !l.AllowPlaintext && !Loopback(l.Server) {
		d.fail(n, join(path, "server"), "%s is another machine, and without TLS the secret and all messages would cross the network in the clear; allowed is tls: true, an address on loopback such as that of a tunnel, or allow_plaintext: true", l.Server)
	}
	return l, true
}

// linkHosts reads which hosts a link speaks for.
func (d *decoder) linkHosts(path string, n *yaml.Node, l *Link, onLink map[string]int) {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		d.fail(n, path, "this is %s; allowed is a list of at least one of the hosts, as in [example.org]", describe(n))
		return
	}
	for i, e := range n.Content {
		e, at := target(e), fmt.Sprintf("%s[%d]", path, i)
		name, ok := domainOf(e)
		if !ok {
			d.fail(e, at, "this is %s; allowed is the name of a host", describe(e))
			continue
		}
		if d.config.Host(name) == nil {
			if d.failed("hosts") || d.hosts == nil {
				continue // it may be there
			}
			hint := ""
			if c := closest(name, d.config.HostNames()); c != "" {
				hint = fmt.Sprintf("; did you mean %s?", c)
			}
			d.fail(e, at, "%s is none of the hosts%s (allowed here: %s)", name, hint, strings.Join(d.config.HostNames(), ", "))
			continue
		}
		if line, twice := onLink[name]; twice {
			d.fail(e, at, "the host %s is on a link already, in line %d; allowed is one link for a host", name, line)
			continue
		}
		onLink[name] = e.Line
		l.Hosts = append(l.Hosts, name)
	}
}

// domainOf is the prepared domain that n names.
func domainOf(n *yaml.Node) (string, bool) {
	if !isText(n) || n.Value == "" || strings.ContainsAny(n.Value, "@/ ") {
		return "", false
	}
	j, err := jid.New("", n.Value, "")
	return j.Domainpart(), err == nil
}

// domain reads a domain.
func (d *decoder) domain(to *string) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		name, ok := domainOf(n)
		if !ok {
			d.fail(n, path, "this is %s; allowed is a domain, as in archive.example.org", describe(n))
			return
		}
		*to = name
	}
}

// server reads an address to connect to.
func (d *decoder) server(to *string) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		host, port, err := net.SplitHostPort(n.Value)
		number, portErr := strconv.Atoi(port)
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" || err != nil || portErr != nil ||
			host == "" || strings.ContainsAny(host, " /@") || number < 1 || number > 65535 {
			d.fail(n, path, "this is %s; allowed is %s", describe(n), serverForms)
			return
		}
		*to = n.Value
	}
}

// secret reads a secret, which no error must repeat.
func (d *decoder) secret(to *string) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" || n.Value == "" {
			d.fail(n, path, "this is no text; allowed is the secret that the server has too, in quotes if it looks like a number")
			return
		}
		*to = n.Value
	}
}

// secretFile reads the path of a file that nobody but its owner should read.
func (d *decoder) secretFile(to *string) func(string, *yaml.Node) {
	text := d.text(to, "the path of a file with the secret in it")
	return func(path string, n *yaml.Node) {
		text(path, n)
		if *to == "" {
			return
		}
		if err := checkSecretFile(*to); err != nil {
			d.fail(n, path, "%v", err)
		}
	}
}

// checkSecretFile refuses a file that isn't there or that others can read. Whether
// it can be read is left to the server, which may be another user.
func checkSecretFile(name string) error {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no file %s; a relative path counts from the working directory", name)
	case err != nil:
		return nil
	case info.IsDir():
		return fmt.Errorf("%s is a directory; allowed is the path of a file", name)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("others can open %s (its mode is %04o); take that away with chmod 600", name, info.Mode().Perm())
	}
	return nil
}

// ReadSecret returns the link's secret. In a file, the line feed at its end does
// not belong to it.
func (l Link) ReadSecret() ([]byte, error) {
	if l.SecretFile == "" {
		return []byte(l.Secret), nil
	}
	if err := checkSecretFile(l.SecretFile); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(l.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("read the secret: %w", err)
	}
	secret := strings.TrimRight(string(b), "\r\n")
	if secret == "" {
		return nil, fmt.Errorf("there is no secret in %s", l.SecretFile)
	}
	return []byte(secret), nil
}
