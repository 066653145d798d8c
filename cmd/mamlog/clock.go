package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
)

func newClockCommand(a *app) *cobra.Command {
	r := &adminv1.ClockRequest{}
	c := &cobra.Command{
		Use:   "clock",
		Short: "Tell whether messages expire by the clock, or accept the clock",
		Long: `A clock that is set ahead by mistake must not make archives expire. When the clock is
ahead of the time that has passed by more than max_clock_jump, nothing is deleted for its
age until the clock is right again, or until --accept says that it is right. The time of
the last use is written down, so a server that was stopped for longer than that asks, too.
Queries then show what is not older than the retention by the time that has passed, and
not by the clock. It exits with 1 while nothing expires.

Messages that come meanwhile bear the time that the clock shows; if that was wrong, they
keep it, and expire by it.`,
		Example: "  mamlog clock\n  mamlog clock --accept",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), offline{stores: true}, func(c adminv1connect.AdminServiceClient) error {
				res, err := c.Clock(cmd.Context(), request(r))
				if err != nil {
					return err
				}
				held := false
				fmt.Fprintf(a.out, "clock: %s\n", stamp(res.Msg.GetClock().AsTime()))
				for _, s := range res.Msg.GetStores() {
					word := "messages expire"
					if s.GetHeld() {
						held, word = true, "nothing expires"
					}
					fmt.Fprintf(a.out, "%s: %s, by the time %s\n", s.GetStore(), word, stamp(s.GetRetentionTime().AsTime()))
				}
				if held {
					return errors.New("the clock is ahead of the time that has passed; set it right, or accept it with 'mamlog clock --accept'")
				}
				return nil
			})
		},
	}
	c.Flags().BoolVar(&r.Accept, "accept", false, "take the clock for right: messages expire by it from now on")
	return c
}
