/* The main() of a program of the kit: MAIN says which one is compiled. */
int MAIN(int argc, char **argv);

int main(int argc, char **argv)
{
    return MAIN(argc, argv);
}
