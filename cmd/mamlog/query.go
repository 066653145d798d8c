package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
	"mamlog/log"
)

func newQueryCommand(a *app) *cobra.Command {
	r := &adminv1.QueryArchiveRequest{}
	start, end := timeFlag{}, timeFlag{end: true}
	var asJSON, asXML bool
	var last, first countFlag
	c := &cobra.Command{
		Use:   "query JID",
		Short: "Print messages of a user's archive",
		Long: `Print the messages of a user's archive, oldest first: all of them, or those that
every given option allows. That the archive was read, by whom and with which
options is recorded in the log before anything is printed.

A date without a time is its first instant for --start and its last for --end.
--after and --before take archive ids and leave that message itself out.

The table shows the first line of each message; -> is sent, <- received, <> to
oneself, ** broadcast by the room that the archive is of, from the occupant that it
names. --json prints one object a line: id, stamp, with, direction (in, out, self or
room), body, stanza, and for a room the sender's real JID if it is known. --xml
prints XEP-0313 <result/> elements in one root.`,
		Example: `  mamlog query juliet@test.example --last 20
  mamlog query juliet@test.example --with romeo@test.example --start 2026-11-01
  mamlog query juliet@test.example --json | jq -r .body`,
		Args:              exactly("JID"),
		ValidArgsFunction: a.completeUser,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Owner = args[0]
			if last > 0 && first > 0 {
				return errors.New("--last and --max can't be given together: one asks for the newest messages, the other for the oldest")
			}
			if asJSON && asXML {
				return errors.New("--json and --xml can't be given together")
			}
			r.Start, r.End = start.timestamp(), end.timestamp()
			r.Last, r.First = uint64(last), uint64(first)
			out := bufio.NewWriterSize(a.out, 1<<16)
			var p printer
			switch {
			case asJSON:
				p = &jsonPrinter{out}
			case asXML:
				p = &xmlPrinter{out: out, owner: args[0]}
			default:
				p = newTablePrinter(a, out)
			}
			return a.withClient(cmd.Context(), offline{owner: args[0]}, func(c adminv1connect.AdminServiceClient) error {
				stream, err := c.QueryArchive(cmd.Context(), request(r))
				if err != nil {
					return err
				}
				err = receive(stream, func(page *adminv1.QueryArchiveResponse) error {
					if err := p.page(page); err != nil {
						return err
					}
					return out.Flush()
				})
				if err == nil {
					err = p.end()
				}
				if flushErr := out.Flush(); err == nil { // otherwise it may be the same again
					err = flushErr
				}
				return err
			})
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.Var((*textFlag)(&r.With), "with", "only messages with this `JID`; a bare one for all of its devices")
	f.Var(&start, "start", "only messages since this time")
	f.Var(&end, "end", "only messages until this time")
	f.Var(&last, "last", "only the newest `N` of them")
	f.Var(&first, "max", "only the oldest `N` of them")
	f.Var((*textFlag)(&r.After), "after", "only messages after the one with this archive `ID`")
	f.Var((*textFlag)(&r.Before), "before", "only messages before the one with this archive `ID`")
	f.BoolVar(&asJSON, "json", false, "print one JSON object a line")
	f.BoolVar(&asXML, "xml", false, "print XML")
	c.RegisterFlagCompletionFunc("with", cobra.NoFileCompletions)
	return c
}

// printer prints messages in one of the formats.
type printer interface {
	page(*adminv1.QueryArchiveResponse) error
	end() error // after the last page, if all went well
}

func direction(d log.Direction) string {
	switch d {
	case log.Direction_DIRECTION_IN:
		return "in"
	case log.Direction_DIRECTION_OUT:
		return "out"
	case log.Direction_DIRECTION_SELF:
		return "self"
	case log.Direction_DIRECTION_ROOM:
		return "room"
	}
	return "unknown"
}

type jsonPrinter struct{ out io.Writer }

// jsonMessage is one line of --json. Scripts depend on its fields.
type jsonMessage struct {
	ID        string `json:"id"`
	Stamp     string `json:"stamp"`
	With      string `json:"with"`
	Direction string `json:"direction"`
	Body      string `json:"body"`
	Stanza    string `json:"stanza"`
	Sender    string `json:"sender,omitempty"` // only in archives of rooms
}

func (p *jsonPrinter) page(page *adminv1.QueryArchiveResponse) error {
	for _, m := range page.GetMessages() {
		if err := writeJSON(p.out, jsonMessage{
			ID: m.GetId(), Stamp: stamp(m.GetStamp().AsTime()), With: m.GetWith(),
			Direction: direction(m.GetDirection()), Body: m.GetBody(), Stanza: m.GetStanza(), Sender: m.GetSender(),
		}); err != nil {
			return err
		}
	}
	return nil
}

func (p *jsonPrinter) end() error { return nil }

// writeJSON writes v on one line, so that a terminal can show it.
func writeJSON(w io.Writer, v any) error {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(escaped([]byte(b.String()), appendJSONEscape))
	return err
}
