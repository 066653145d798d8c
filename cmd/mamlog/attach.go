package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"

	"mamlog/attach/component"
	"mamlog/cmd/mamlog/config"
	"mamlog/xep0313"
)

// newLinks makes the configured links to XMPP servers.
func (s *server) newLinks(archive *xep0313.Archive) (*component.Links, error) {
	c := component.Config{
		Archive: archive, Logger: s.logger, Metrics: s.metrics,
		Limits: component.Limits{PerUser: s.config.Limits.UserQueries},
	}
	for i, l := range s.config.Links {
		link, err := newLink(l)
		if err != nil {
			return nil, fmt.Errorf("links[%d] in %s: %w", i, s.config.File, err)
		}
		c.Links = append(c.Links, link)
	}
	return component.New(c)
}

func newLink(l config.Link) (component.Link, error) {
	secret, err := l.ReadSecret()
	if err != nil {
		return component.Link{}, err
	}
	out := component.Link{Server: l.Server, Domain: l.Domain, Secret: secret, Hosts: l.Hosts, AllowPlaintext: l.AllowPlaintext, Delegation: l.Delegation}
	if l.TLS {
		out.TLS, err = linkTLS(l)
	}
	return out, err
}

// linkTLS is how the server of a link is known.
func linkTLS(l config.Link) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: l.ServerName}
	if c.ServerName == "" {
		host, _, err := net.SplitHostPort(l.Server)
		if err != nil {
			return nil, err
		}
		c.ServerName = host
	}
	if l.CA == "" {
		return c, nil
	}
	b, err := os.ReadFile(l.CA)
	if err != nil {
		return nil, fmt.Errorf("read the ca: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("there is no certificate in %s; the ca is a PEM file", l.CA)
	}
	return c, nil
}
