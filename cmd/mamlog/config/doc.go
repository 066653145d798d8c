// Package config reads mamlog's configuration file.
//
// It knows every option, its default and its bounds. What it returns has been
// checked in full; what it refuses it names by file, line and option, all of it
// at once. It opens nothing but the file itself.
package config
