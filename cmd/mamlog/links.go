package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/rivo/uniseg"
	"github.com/spf13/cobra"

	"mamlog/admin"
	adminv1 "mamlog/admin/v1"
)

func newLinksCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "links",
		Short: "Show the links to XMPP servers",
		Long: `Show each link to an XMPP server as the running server sees it: whether it is up and
since when, what went wrong the last time, how many appends are under way and how
fast they are answered, and what the module at each host says of itself: its
software, how many messages wait in its spool, its last error.

Times and rates are of the last minute, totals since the server started. A host
without a hello is not served: its module is not loaded, or not for this component.

--json prints one object a line for each link: server, component, state (connecting,
up or down), since, appends (in_flight, total, per_second, p50_seconds, p99_seconds),
queries (waiting, total), fault and fault_at (null if there was none), and hosts
(name, served, last_hello, serves, software, version, spool, spool_bytes, error).`,
		Example: `  mamlog links
  mamlog links --json | jq -r 'select(.state != "up") | .component + ": " + .fault'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, err := a.loadConfig()
			if err != nil {
				return err
			}
			client, err := admin.Dial(conf.AdminSocket)
			if errors.Is(err, admin.ErrNoServer) {
				err = fmt.Errorf("%w; links are open only while 'mamlog serve' runs", err)
			}
			if err != nil {
				return &failure{exitFailed, err}
			}
			res, err := client.ListLinks(cmd.Context(), request(&adminv1.ListLinksRequest{}))
			if err != nil {
				return failed(err)
			}
			if len(res.Msg.GetLinks()) == 0 {
				fmt.Fprintln(a.err, "no links are configured")
			}
			out := bufio.NewWriter(a.out)
			for i, l := range res.Msg.GetLinks() {
				if asJSON {
					err = errors.Join(err, writeJSON(out, linkJSON(l)))
					continue
				}
				if i > 0 {
					fmt.Fprintln(out)
				}
				printLink(out, l)
			}
			return errors.Join(err, out.Flush())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return c
}

func printLink(w io.Writer, l *adminv1.Link) {
	fmt.Fprintf(w, "%s  %s since %s\n", harmless(l.GetComponent()), linkState(l), clock(l.GetSince().AsTime()))
	fmt.Fprintf(w, "  server   %s\n", harmless(l.GetServer()))
	if l.GetFault() != "" {
		fmt.Fprintf(w, "  fault    %s  %s\n", clock(l.GetFaultAt().AsTime()), harmless(l.GetFault()))
	}
	appends := fmt.Sprintf("%d answered, %.1f/s, %d in flight", l.GetAppends(), l.GetAppendsPerSecond(), l.GetAppendsInFlight())
	if p99 := l.GetAppendP99().AsDuration(); p99 > 0 {
		appends += fmt.Sprintf(", p50 %s, p99 %s", milliseconds(l.GetAppendP50().AsDuration()), milliseconds(p99))
	}
	fmt.Fprintf(w, "  appends  %s\n", appends)
	fmt.Fprintf(w, "  queries  %d answered, %d waiting\n", l.GetQueries(), l.GetQueriesWaiting())
	rows := [][]string{{"HOST", "SERVES", "SPOOL", "SOFTWARE"}}
	for _, h := range l.GetHosts() {
		rows = append(rows, hostRow(h))
	}
	printColumns(w, "  ", rows)
	for _, h := range l.GetHosts() {
		if h.GetError() != "" {
			fmt.Fprintf(w, "  %s says: %s\n", harmless(h.GetName()), isolated(harmless(h.GetError())))
		}
	}
}

func hostRow(h *adminv1.LinkedHost) []string {
	row := []string{harmless(h.GetName()), serves(h), "-", "-"}
	if h.GetLastHello() != nil {
		row[2] = strconv.FormatUint(h.GetSpoolMessages(), 10)
		row[3] = isolated(harmless(h.GetSoftware()))
	}
	if h.GetSpoolBytes() > 0 {
		row[2] += fmt.Sprintf(" (%d KiB)", (h.GetSpoolBytes()+1023)/1024)
	}
	switch {
	case h.GetServed():
	case h.GetDelegated():
		row[1] = "queries only"
	default:
		row[1] = "no hello"
	}
	return row
}

// printColumns prints rows with every column as wide as it needs.
func printColumns(w io.Writer, indent string, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], uniseg.StringWidth(cell))
		}
	}
	for _, r := range rows {
		line := indent
		for i, cell := range r {
			line += pad(cell, widths[i]) + "  "
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}

func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 2, 64) + " ms"
}

func linkState(l *adminv1.Link) string {
	return strings.ToLower(strings.TrimPrefix(l.GetState().String(), "LINK_STATE_"))
}

func serves(h *adminv1.LinkedHost) string {
	if h.GetRooms() {
		return "rooms"
	}
	return "accounts"
}

// jsonLink is one line of --json. Scripts depend on its fields.
type jsonLink struct {
	Server    string           `json:"server"`
	Component string           `json:"component"`
	State     string           `json:"state"`
	Since     string           `json:"since"`
	Appends   jsonAppends      `json:"appends"`
	Queries   jsonQueries      `json:"queries"`
	Fault     *string          `json:"fault"`
	FaultAt   *string          `json:"fault_at"`
	Hosts     []jsonLinkedHost `json:"hosts"`
}

type jsonAppends struct {
	InFlight  uint64  `json:"in_flight"`
	Total     uint64  `json:"total"`
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_seconds"`
	P99       float64 `json:"p99_seconds"`
}

type jsonQueries struct {
	Waiting uint64 `json:"waiting"`
	Total   uint64 `json:"total"`
}

// jsonLinkedHost has null for what only a hello tells, while there was none.
type jsonLinkedHost struct {
	Name       string  `json:"name"`
	Served     bool    `json:"served"`
	Delegated  bool    `json:"delegated"`
	LastHello  *string `json:"last_hello"`
	Serves     *string `json:"serves"`
	Software   *string `json:"software"`
	Version    *uint32 `json:"version"`
	Spool      *uint64 `json:"spool"`
	SpoolBytes *uint64 `json:"spool_bytes"`
	Error      *string `json:"error"`
}

func linkJSON(l *adminv1.Link) jsonLink {
	j := jsonLink{
		Server: l.GetServer(), Component: l.GetComponent(), State: linkState(l), Since: stamp(l.GetSince().AsTime()),
		Appends: jsonAppends{
			l.GetAppendsInFlight(), l.GetAppends(), l.GetAppendsPerSecond(),
			l.GetAppendP50().AsDuration().Seconds(), l.GetAppendP99().AsDuration().Seconds(),
		},
		Queries: jsonQueries{l.GetQueriesWaiting(), l.GetQueries()},
		Hosts:   []jsonLinkedHost{},
	}
	if l.GetFault() != "" {
		j.Fault, j.FaultAt = new(l.GetFault()), new(stamp(l.GetFaultAt().AsTime()))
	}
	for _, h := range l.GetHosts() {
		jh := jsonLinkedHost{Name: h.GetName(), Served: h.GetServed(), Delegated: h.GetDelegated()}
		if h.GetLastHello() != nil {
			jh.LastHello, jh.Serves, jh.Software = new(stamp(h.GetLastHello().AsTime())), new(serves(h)), new(h.GetSoftware())
			jh.Version, jh.Spool, jh.SpoolBytes, jh.Error = new(h.GetProtocolVersion()), new(h.GetSpoolMessages()), new(h.GetSpoolBytes()), new(h.GetError())
		}
		j.Hosts = append(j.Hosts, jh)
	}
	return j
}
