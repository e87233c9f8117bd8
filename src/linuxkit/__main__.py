from linuxkit.cli.main import main

main()
