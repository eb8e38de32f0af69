"""Django REST Framework with its own tokens, generic views and cursor pagination."""

import os

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application

settings.configure(
    SECRET_KEY="a secret that a benchmark may show",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "rest_framework",
        "rest_framework.authtoken",
    ],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["BENCH_DATABASE"],
            "CONN_MAX_AGE": None,
            "OPTIONS": {"init_command": "PRAGMA journal_mode = WAL"},
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": [
            "rest_framework.authentication.TokenAuthentication"
        ],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    },
)
django.setup()

from django.contrib.auth.models import User
from django.urls import path
from rest_framework import generics, pagination, permissions, serializers


class AccountSerializer(serializers.ModelSerializer[User]):
    name = serializers.CharField(source="first_name")
    is_admin = serializers.BooleanField(source="is_staff")
    created_at = serializers.DateTimeField(source="date_joined")

    class Meta:
        model = User
        fields = ("id", "name", "email", "is_admin", "created_at")


class Pages(pagination.CursorPagination):
    ordering = "id"
    page_size_query_param = "limit"


class Me(generics.RetrieveAPIView[User]):
    serializer_class = AccountSerializer
    permission_classes = (permissions.IsAuthenticated,)

    def get_object(self) -> User:
        return self.request.user


class One(generics.RetrieveAPIView[User]):
    queryset = User.objects.all()
    serializer_class = AccountSerializer
    permission_classes = (permissions.IsAdminUser,)


class All(generics.ListAPIView[User]):
    queryset = User.objects.all()
    serializer_class = AccountSerializer
    permission_classes = (permissions.IsAdminUser,)
    pagination_class = Pages


urlpatterns = [
    path("api/users", All.as_view()),
    path("api/users/me", Me.as_view()),
    path("api/users/<int:pk>", One.as_view()),
]
application = get_wsgi_application()
