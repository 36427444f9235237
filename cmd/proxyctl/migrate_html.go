package main

import (
	_ "embed"
	"html/template"
	"io"
)

// migrationPage is one page without anything to fetch.
//
//go:embed migrate.html
var migrationPage string

func writeMigrationHTML(w io.Writer, r *migration) error {
	page, err := template.New("migrate").Parse(migrationPage)
	if err != nil {
		return err
	}
	return page.Execute(w, r)
}
