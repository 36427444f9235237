package certs

import (
	"errors"
	"regexp"
	"strings"

	"github.com/mholt/acmez/v3/acme"
)

// maxReason bounds what is said about a failure: answers of an authority can be
// whole pages.
const maxReason = 1000

// reason words a failure for logs and lists: once, in one line, without what
// certmagic says around it.
func reason(err error) string {
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r < ' ' }), " ")
	for _, r := range []struct{ pattern, with string }{
		{`registering account \[[^\]]*\] with server: `, ""},
		{`(^|: )\[[a-zA-Z0-9*.:_ -]+\] `, "$1"}, // the names of the order
		{` \(ca=[^)]*\)`, ""},
		{`solving challenges?: `, ""},
		{`provisioning client: `, ""},
		{`performing request: `, ""},
		{`authorization failed: `, ""},
		{`HTTP [0-9]+ urn:ietf:params:acme:error:([a-zA-Z]+) - `, "$1: "},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.with)
	}
	text = strings.TrimSpace(text)
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "..."
	}
	return text
}

// unknownProfile says whether an authority does not have the profile that it is
// asked for. acmez looks into the directory first, and has no error of a type.
func unknownProfile(err error) bool {
	var problem acme.Problem
	if errors.As(err, &problem) {
		return strings.HasSuffix(problem.Type, ":invalidProfile")
	}
	text := err.Error()
	return strings.Contains(text, "unknown profile name") || strings.Contains(text, "does not advertise support for profiles")
}
