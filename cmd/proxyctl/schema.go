package main

import (
	"embed"

	"github.com/spf13/cobra"
)

// schemas describe the JSON that commands write, by the name of the command.
//
//go:embed schema/*.json
var schemas embed.FS

// schemaFormat is the --format that prints the schema of --format json.
const schemaFormat = "json-schema"

func printSchema(cmd *cobra.Command, of string) error {
	text, err := schemas.ReadFile("schema/" + of + ".json")
	if err == nil {
		_, err = cmd.OutOrStdout().Write(text)
	}
	return err
}

// unlessSchema demands arguments where not the schema alone is asked for.
func unlessSchema(format *string, args cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if *format == schemaFormat {
			return nil
		}
		return args(cmd, given)
	}
}
