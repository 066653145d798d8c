package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newConfigCommand(a *app) *cobra.Command {
	return parent(&cobra.Command{
		Use:   "config",
		Short: "Check the configuration",
		Long: `The configuration is one YAML file. Two options are needed:

  data_dir: /var/lib/mamlog
  hosts: [test.example]

The others, with their defaults:

  c2s:
    listen: 127.0.0.1:5222       where clients connect
    websocket_listen:            where web clients connect; off
    allow_plaintext: false       log in without TLS; only on loopback
    certificate:, key:           PEM files; self-signed
  links: []                      XMPP servers whose archive this is; see below
  admin: {socket: DATA_DIR/admin.sock}
  metrics: {listen: }            Prometheus; off, and always on the admin socket
  log_level: info                debug, info, warn, error
  log_format: auto               auto, console, json
  cache_size: 192MiB             memory for reading, shared by all stores
  disk_reserve: 128MiB           with less free space nothing is archived
  max_clock_jump: 1d             with the clock further ahead of the time that has
                                 passed, stops included, nothing expires; see
                                 'mamlog clock --help'; never: it is not looked at

A link makes mamlog the archive of a server such as Prosody or ejabberd, as its
component (docs/attach-protocol.md). Beside links, c2s is off unless it is set, and
serves only hosts that are on no link:

  links:
    - server: 127.0.0.1:5347     address of the server's component listener
      domain: archive.test.example
      secret: s3cret             or secret_file: FILE, of mode 0600
      hosts: [test.example]      those of the hosts that the server has
      tls: false                 TLS from the first byte on
      ca:, server_name:          whom to trust, and the name in the certificate
      allow_plaintext: false     no TLS, and yet not on loopback
      delegation: false          let clients ask without a module (XEP-0355, XEP-0356)

These are mod_mam's, the quotas apart. They stand at the top level for all hosts, and in a host's
mapping, as in "hosts: [{test.example: {archive_expires_after: 1y}}]", for one:

  archive_expires_after: 1w      seconds, or 1d 1w 2m 1y, or never
  default_archive_policy: true   true (always), false (never) or roster
  archive_cleanup_interval: 14400
  archive_quota_items: none      of each archive, at most so many messages
  archive_quota_bytes: none      or so many bytes of stanzas, as in 100MiB
  max_archive_query_results: 50
  archive_store: archive         name of the store of messages
  dont_archive_namespaces: ["http://jabber.org/protocol/chatstates"]
  mam_smart_enable: false        archive only for users who used the archive
  storage:
    archive: pebble              by name of store: pebble or memory
    fallback: none               memory: go on without data that can't be opened`,
	}, &cobra.Command{
		Use:   "check",
		Short: "Check the configuration and print it with all defaults",
		Long: `Check the configuration file. If it is right, print the configuration in force for
each host, with all defaults, as a configuration file; otherwise print every fault
with its file and line, and exit with 1. Nothing is opened or changed.`,
		Example: "  mamlog config check --config /etc/mamlog.yaml",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := a.loadConfig()
			if err != nil {
				return err
			}
			fmt.Fprint(a.out, c.Format())
			return nil
		},
	})
}
