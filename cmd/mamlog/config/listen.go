package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

const listenForms = "HOST:PORT, as in 127.0.0.1:5222 or [::1]:5222"

// CheckListen says what is wrong with an address to listen on.
func CheckListen(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not an address; allowed is %s", address, listenForms)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q is not a port; allowed is %s", port, listenForms)
	}
	if strings.ContainsAny(host, " /@") {
		return fmt.Errorf("%q is not a host; allowed is %s", host, listenForms)
	}
	return nil
}

// Loopback tells whether only this machine can reach the address.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}

// listen reads an address to listen on.
func (d *decoder) listen(to *string) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
			d.fail(n, path, "this is %s; allowed is %s", describe(n), listenForms)
			return
		}
		if err := CheckListen(n.Value); err != nil {
			d.fail(n, path, "%v", err)
			return
		}
		if *to != "" && to == &d.config.C2S.WebSocketListen {
			d.fail(n, path, "c2s.websocket_listen and c2s.websocket.listen are the same option; set one of them")
			return
		}
		*to = n.Value
		if d.listens == nil {
			d.listens = make(map[string]*yaml.Node)
		}
		d.listens[path] = n
	}
}

// checkListeners checks what an address and the options beside it allow
// together.
func (d *decoder) checkListeners() {
	c := d.config
	// Metrics without a host are for this machine: who wants to show them to
	// others says so.
	if host, port, err := net.SplitHostPort(c.MetricsListen); err == nil && host == "" {
		c.MetricsListen = net.JoinHostPort("127.0.0.1", port)
	}
	if c.C2S.AllowPlaintext {
		for path, n := range d.listens {
			if strings.HasPrefix(path, "c2s.") && !Loopback(n.Value) {
				d.fail(n, path, "%s can be reached from other machines, and allow_plaintext would let passwords cross the network in the clear; allowed is a loopback address such as 127.0.0.1, or allow_plaintext: false", n.Value)
			}
		}
	}
	if (c.C2S.Certificate == "") != (c.C2S.Key == "") && !d.failed("c2s.certificate") && !d.failed("c2s.key") {
		set, missing := "certificate", "key"
		if c.C2S.Certificate == "" {
			set, missing = missing, set
		}
		d.fail(d.c2s, "c2s", "%s is set without %s; allowed is both, or neither for a self-signed certificate", set, missing)
	}
}
