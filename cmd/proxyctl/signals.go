package main

import (
	"github.com/spf13/cobra"
)

// signalInfo is one thing that can be told to a running server.
type signalInfo struct{ name, short string }

func signals() []signalInfo {
	return []signalInfo{
		{"reload", "Load the configuration anew; returns when it serves, or says why it cannot"},
		{"stop", "End the server at once"},
		{"quit", "End the server when its requests have ended"},
		{"reopen", "Reopen the log files"},
	}
}

func signalCommand(s signalInfo) *cobra.Command {
	pid := defaultPID
	cmd := &cobra.Command{
		Use:   s.name,
		Short: s.short,
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return sendSignal(pid, s.name)
		},
	}
	cmd.Flags().StringVar(&pid, "pid", pid, "pid file of the server")
	return cmd
}
